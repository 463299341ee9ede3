"""Fused and stored labels are the same labels, down to the bytes of each part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from support.one_process import FOLD, Tiny, finish

from gmp_atl_dist.clustering.sample import plan_sample
from gmp_atl_dist.config import (
    ClusterConfig,
    ClusterWorkersConfig,
    CorpusConfig,
    ExtractConfig,
    FoldsConfig,
    LabelConfig,
    RuntimeConfig,
)
from gmp_atl_dist.corpora.folds import plan_folds
from gmp_atl_dist.inference.labeller import Codebooks
from gmp_atl_dist.stages.base import Context
from gmp_atl_dist.stages.cluster import Cluster
from gmp_atl_dist.stages.extract import Extract
from gmp_atl_dist.stages.ingest import Ingest
from gmp_atl_dist.stages.label import FusedLabel, Label
from gmp_atl_dist.stages.label_plan import plan_labels
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.codebooks import read_codebooks
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.readers import read_utterances
from gmp_atl_dist.store.training_set import TrainingSet

pytest_plugins = ["support.one_process"]

EMODB = {"adapter": "table", "columns": {"id": "utt_id"}, "part_audio_s": 120}


def both_ways(
    context: Context,
    training: TrainingSet,
    model: Artifact,
    cluster: Mapping[str, object],
    ways: Sequence[bool] = (False, True),
) -> dict[bool, tuple[Artifact, Artifact, Artifact]]:
    """Features, codebooks and labels of the stored and of the fused way."""
    extract = ExtractConfig(layers=(2, 3), part_frames=2000)
    config = ClusterConfig.model_validate(
        {"scales": [{"layer": 2, "k": 7}, {"layer": 3, "k": 12}], "iterations": 5, **cluster}
    )
    found = {}
    for fused in ways:
        plan = plan_labels(LabelConfig(fused=fused), config, training)
        features = finish(Extract(extract, model, training, plan), context)
        codebooks = finish(Cluster(config, features, training, plan), context)
        stage = (
            FusedLabel(extract, model, codebooks, training)
            if fused
            else Label(features, codebooks, training)
        )
        found[fused] = (features, codebooks, finish(stage, context))
    return found


def contents(artifact: Artifact) -> dict[str, str]:
    return {r.name: r.sha256 for r in artifact.manifest.receipts}


def centroids(codebooks: Artifact) -> list[str]:
    """What a fit gives; the parts that it read may differ, and with them the last digits of a distance."""
    return [book.fingerprint for book in read_codebooks(codebooks)]


def stored_frames(features: Artifact) -> int:
    return sum(r.frames for r in features.manifest.receipts)


@pytest.mark.parametrize(
    "cluster",
    [
        {},
        {"sample_frames": 120, "sample_spread": 2.0},
        {"gender": "by_gender"},
        {"balance": "emotion", "sample_frames": 160, "sample_spread": 2.0},
    ],
)
@pytest.mark.usefixtures("in_process")
def test_both_ways_give_the_same_labels(
    tiny: Tiny, tmp_path: Path, cluster: Mapping[str, object]
) -> None:
    training = TrainingSet(tiny.corpus, FOLD.training_speakers())
    found = both_ways(tiny.with_root(tmp_path), training, tiny.backbone, cluster)
    (stored, books, labels), (sampled, fused_books, fused_labels) = found[False], found[True]

    assert centroids(books) == centroids(fused_books)
    assert contents(labels) == contents(fused_labels)
    assert labels.manifest.receipts
    if "sample_frames" in cluster:
        assert 0 < stored_frames(sampled) < 0.7 * stored_frames(stored)
    else:
        assert contents(stored) == contents(sampled)


@pytest.mark.usefixtures("in_process")
def test_both_ways_give_the_same_labels_on_real_speech(
    tiny: Tiny, data_root: Path, tmp_path: Path
) -> None:
    corpus = data_root / "emodb2s"
    if not corpus.is_dir():
        pytest.skip("emodb2s is not here")
    source = Store.open(str(corpus))
    context = replace(tiny.with_root(tmp_path), source=source)
    config = CorpusConfig.model_validate(EMODB)
    ingested = finish(Ingest(config, source), context)
    fold = plan_folds(read_utterances(ingested), FoldsConfig(by="speaker"))[0]
    training = TrainingSet(ingested, fold.training_speakers())
    found = both_ways(
        context, training, tiny.backbone, {"sample_frames": 5000, "sample_spread": 3.0}
    )
    (stored, books, labels), (sampled, fused_books, fused_labels) = found[False], found[True]

    assert centroids(books) == centroids(fused_books)
    assert contents(labels) == contents(fused_labels)
    assert len(labels.part_names) > 10
    share = stored_frames(sampled) / stored_frames(stored)
    assert 0.2 < share < 0.5
    print(f"{stored_frames(stored)} frames stored, {share:.2f} of them in fused mode")


@pytest.mark.parametrize(("engine", "metric"), [("torch", "cosine"), ("faiss", "euclidean")])
@pytest.mark.usefixtures("in_process")
def test_labels_that_are_found_on_the_device_are_the_same(
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: Literal["torch", "faiss"],
    metric: str,
) -> None:
    """The branch of a GPU on a CPU, with the features of the CPU; a codebook of each gender."""
    training = TrainingSet(tiny.corpus, FOLD.training_speakers())
    cluster = {"gender": "by_gender", "metric": metric}
    context = tiny.with_root(tmp_path)
    (_, books, labels) = both_ways(context, training, tiny.backbone, cluster, [False])[False]
    assert len(read_codebooks(books)) == 4

    settings = RuntimeConfig(cluster=ClusterWorkersConfig(engine=engine))
    again = replace(tiny.with_root(tmp_path / "again"), settings=settings)
    monkeypatch.setattr("gmp_atl_dist.inference.labeller.has_gpu", lambda: True)
    # The search of the CPU.
    monkeypatch.setattr(Codebooks, "rows", None)
    extract = ExtractConfig(layers=(2, 3), part_frames=2000)
    found = finish(FusedLabel(extract, tiny.backbone, books, training), again)
    assert contents(found) == contents(labels)


def test_a_sample_is_drawn_only_where_there_is_too_much() -> None:
    ids, frames = [f"u{i}" for i in range(1000)], np.full(1000, 100)
    assert plan_sample(ClusterConfig(sample_frames=100_000), ids, [], frames).utterances.is_all
    few = plan_sample(ClusterConfig(sample_frames=1000), ids, [], frames)
    assert few.utterances.share == 0.04
