"""Codebooks and pseudo-labels: whose frames, which ids, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from one_process import FOLD, Tiny, finish

from gmp_atl_dist.clustering.sample import UtteranceSample
from gmp_atl_dist.config import ClusterConfig
from gmp_atl_dist.errors import ConfigError, CorpusError, ModelError
from gmp_atl_dist.records import CODEBOOK_SCHEMA, EVERYBODY, FEATURE_SCHEMA, LABEL_SCHEMA, Fold
from gmp_atl_dist.stages.base import Context
from gmp_atl_dist.stages.cluster import Cluster, _Fitter, _FitterArgument
from gmp_atl_dist.stages.label import Label, check_labels
from gmp_atl_dist.stages.learners import Learners
from gmp_atl_dist.store.artifact import Artifact, ArtifactKey, ArtifactWriter
from gmp_atl_dist.store.features import feature_part_name
from gmp_atl_dist.store.readers import (
    label_counts,
    read_codebooks,
    read_labels,
    read_utterances,
)

pytest_plugins = ["one_process"]

DIM = 6


def made(context: Context, kind: str, name: str, tables: Mapping[str, pa.Table]) -> Artifact:
    out = ArtifactWriter(context.store, ArtifactKey(kind, name))
    for part, table in tables.items():
        out.put_part(part, table)
    return out.seal(version=1, science={}, inputs={})


def spoken(ids: Sequence[str], layer: int) -> dict[str, np.ndarray]:
    """Random frames that follow from the id and the layer."""
    frames: dict[str, np.ndarray] = {}
    for utterance_id in ids:
        rng = np.random.default_rng([layer, *utterance_id.encode()])
        frames[utterance_id] = rng.normal(size=(int(rng.integers(5, 20)), DIM)).astype(np.float16)
    return frames


def features_of(
    context: Context, ids: Sequence[str], *, parts: int = 2, layers: Sequence[int] = (2, 3)
) -> Artifact:
    tables: dict[str, pa.Table] = {}
    for layer in layers:
        frames = spoken(ids, layer)
        for part in range(parts):
            rows = [
                {
                    "utterance_id": i,
                    "layer": layer,
                    "num_frames": len(frames[i]),
                    "dim": DIM,
                    "frames": frames[i].tobytes(),
                }
                for i in list(ids)[part::parts]
            ]
            name = feature_part_name(f"part-{part}", layer)
            tables[name] = pa.Table.from_pylist(rows, schema=FEATURE_SCHEMA)
    return made(context, "extract", f"{parts}-{len(ids)}", tables)


@dataclass(frozen=True)
class Bench:
    tiny: Tiny
    context: Context

    @property
    def training(self) -> list[str]:
        return [u.utterance_id for u in FOLD.select(read_utterances(self.tiny.corpus), "train")]

    def cluster(
        self,
        features: Artifact,
        scales: Sequence[tuple[int, int]] = ((2, 4), (3, 5), (2, 7)),
        *,
        fold: Fold = FOLD,
        transductive: bool = False,
        share: float = 1.0,
        **keys: object,
    ) -> Artifact:
        config = ClusterConfig.model_validate(
            {"scales": [{"layer": layer, "k": k} for layer, k in scales], **keys}
        )
        learners = Learners(self.tiny.corpus, fold, transductive)
        stage = Cluster(config, features, learners, UtteranceSample(share, 0))
        return finish(stage, self.context)

    def label(self, features: Artifact, codebooks: Artifact) -> Artifact:
        return finish(Label(self.tiny.corpus, features, codebooks, "fold1"), self.context)


@pytest.fixture
def bench(tiny: Tiny, tmp_path: Path, in_process: None) -> Bench:
    return Bench(tiny, tiny.with_root(tmp_path / "root"))


def test_every_scale_has_its_codebook(bench: Bench) -> None:
    codebooks = bench.cluster(features_of(bench.context, bench.training))
    found = [
        (b.scale, b.layer, b.group, b.offset, b.centroids_KD.shape)
        for b in read_codebooks(codebooks)
    ]

    assert found == [
        (0, 2, "all", 0, (4, DIM)),
        (1, 3, "all", 0, (5, DIM)),
        (2, 2, "all", 0, (7, DIM)),
    ]
    assert label_counts(codebooks) == (4, 5, 7)


@pytest.mark.parametrize("sample_frames", [10**6, 150])
def test_the_sample_does_not_depend_on_parts(bench: Bench, sample_frames: int) -> None:
    training = FOLD.training(read_utterances(bench.tiny.corpus))
    config = ClusterConfig(sample_frames=sample_frames)
    key = ArtifactKey("cluster", "sampled")
    samples = [
        _Fitter(
            _FitterArgument(
                features_of(bench.context, bench.training, parts=parts),
                training,
                config,
                UtteranceSample(1.0, 0),
                bench.context.store,
                key,
            )
        )._sample(2, EVERYBODY)
        for parts in (1, 3)
    ]
    first, other = (sorted(map(tuple, x_MD.tolist())) for x_MD in samples)

    assert first == other
    assert len(first) == len(set(first)) > 100


def test_the_same_twice_has_the_same_bytes(tiny: Tiny, tmp_path: Path, in_process: None) -> None:
    receipts = []
    for name in ("a", "b"):
        bench = Bench(tiny, tiny.with_root(tmp_path / name))
        receipts.append(bench.cluster(features_of(bench.context, bench.training)).manifest.receipts)
    assert receipts[0] == receipts[1]


def test_a_test_speaker_in_the_features_stops_the_fit(bench: Bench) -> None:
    (planted,) = [
        u.utterance_id for u in FOLD.select(read_utterances(bench.tiny.corpus), "test")[:1]
    ]
    features = features_of(bench.context, [*bench.training, planted])
    with pytest.raises(
        CorpusError, match=rf"utterance '{planted}' .* not of a training speaker of fold 'fold1'"
    ):
        bench.cluster(features)
    # The arm that says so by its name may hear it.
    assert bench.cluster(features, transductive=True).part_names == ("layer02", "layer03")


def test_a_validation_speaker_stops_it_as_well(bench: Bench) -> None:
    (planted,) = FOLD.select(read_utterances(bench.tiny.corpus), "valid")[:1]
    with pytest.raises(CorpusError, match=planted.utterance_id):
        bench.cluster(features_of(bench.context, [*bench.training, planted.utterance_id]))


def test_more_clusters_than_frames_name_the_scale(bench: Bench) -> None:
    features = features_of(bench.context, bench.training)
    with pytest.raises(ConfigError, match=r"cluster\.scales\[1\] \(layer 3, all\): k = 5000"):
        bench.cluster(features, ((2, 4), (3, 5000)))


def test_labels_are_the_nearest_centroids(bench: Bench) -> None:
    features = features_of(bench.context, bench.training)
    codebooks = bench.cluster(features)
    labels = bench.label(features, codebooks)
    found = read_labels(labels)
    by_layer = {layer: spoken(bench.training, layer) for layer in (2, 3)}

    assert set(found) == set(bench.training)
    for book in read_codebooks(codebooks):
        for utterance_id, ids in found.items():
            x_TD = by_layer[book.layer][utterance_id].astype(np.float64)
            distances = np.square(x_TD[:, None] - book.centroids_KD[None]).sum(axis=2)
            np.testing.assert_array_equal(ids[book.scale], distances.argmin(axis=1))
    counts = check_labels(labels, codebooks)
    total = sum(len(x) for x in by_layer[2].values())
    assert [len(c) for c in counts] == [4, 5, 7]
    assert [int(counts[i].sum()) for i in (0, 2)] == [total, total]


def test_genders_never_share_a_label(bench: Bench) -> None:
    features = features_of(bench.context, bench.training)
    codebooks = bench.cluster(features, by_gender=True)
    labels = read_labels(bench.label(features, codebooks))
    gender = {u.utterance_id: u.gender for u in read_utterances(bench.tiny.corpus)}

    assert [(b.scale, b.group, b.offset) for b in read_codebooks(codebooks)] == [
        *((0, "female", 0), (0, "male", 4)),
        *((1, "female", 0), (1, "male", 5)),
        *((2, "female", 0), (2, "male", 7)),
    ]
    assert label_counts(codebooks) == (8, 10, 14)
    for scale, k in enumerate((4, 5, 7)):
        ids = {
            g: np.concatenate([labels[u][scale] for u in labels if gender[u] == g])
            for g in ("female", "male")
        }
        assert ids["female"].max() < k <= ids["male"].min()
        assert ids["male"].max() < 2 * k


def test_a_gender_without_training_speakers_is_named(bench: Bench) -> None:
    women = Fold("women", ("Ses03F", "Ses04F"), ("Ses01F",))
    ids = [u.utterance_id for u in women.select(read_utterances(bench.tiny.corpus), "train")]
    with pytest.raises(CorpusError, match=r"by_gender: fold 'women' has no male training"):
        bench.cluster(features_of(bench.context, ids), fold=women, by_gender=True)


def codebook(context: Context, ks: Sequence[int]) -> Artifact:
    rows = [
        {
            "scale": i,
            "layer": 2,
            "group": "all",
            "offset": 0,
            "k": k,
            "dim": 1,
            "centroids": np.arange(k, dtype="<f4").tobytes(),
        }
        for i, k in enumerate(ks)
    ]
    table = pa.Table.from_pylist(rows, schema=CODEBOOK_SCHEMA)
    return made(context, "cluster", "-".join(map(str, ks)), {"layer02": table})


def labelled(context: Context, name: str, ids: Mapping[str, Sequence[Sequence[int]]]) -> Artifact:
    rows = [
        {
            "utterance_id": utterance_id,
            "scale": scale,
            "num_frames": len(values),
            "labels": np.array(values, dtype="<i4").tobytes(),
        }
        for utterance_id, scales in ids.items()
        for scale, values in enumerate(scales)
    ]
    table = pa.Table.from_pylist(rows, schema=LABEL_SCHEMA)
    return made(context, "label", name, {"part": table})


def test_labels_are_counted(bench: Bench) -> None:
    labels = labelled(bench.context, "fine", {"a": [[0, 1, 1], [3, 3, 3]], "b": [[1], [0]]})
    counts = check_labels(labels, codebook(bench.context, (2, 4)))
    assert [c.tolist() for c in counts] == [[1, 3], [1, 0, 0, 3]]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ({"a": [[0, 1], [0, 4]]}, r"'a': labels of scale 1 run from 0 to 4, expected 0 to 3"),
        ({"a": [[0, 1], [0, 1]], "b": [[-1], [0]]}, r"'b': labels of scale 0 run from -1 to -1"),
        ({"a": [[0, 1]]}, r"'a' has labels of 1 scales, expected 2"),
        ({"a": [[0, 1], [2, 2]]}, r"scale 1: every frame has label 2, so there is nothing"),
        ({"a": [[], []]}, r"there is no label at all"),
        ({}, r"there is no label at all"),
    ],
)
def test_labels_that_teach_nothing_are_refused(
    bench: Bench, ids: dict[str, list[list[int]]], message: str
) -> None:
    labels = labelled(bench.context, "bad", ids)
    with pytest.raises(ModelError, match=message):
        check_labels(labels, codebook(bench.context, (2, 4)))
