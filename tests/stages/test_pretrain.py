"""Pretraining from random weights: two iterations in a whole run, whose speech is heard, the same again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from support.one_process import FOLD, Tiny, context_of, finish, no_ray, tiny_experiment

from gmp_atl_dist import execution, stage_order, stage_survey
from gmp_atl_dist.config import ExtractConfig, LabelConfig, PretrainConfig, RunConfig
from gmp_atl_dist.errors import ArtifactError, ConfigError, CorpusError, ModelError
from gmp_atl_dist.inference.device_mfcc import MFCC_LAYER
from gmp_atl_dist.inference.mfcc import MFCC_DIM
from gmp_atl_dist.stages.base import Context
from gmp_atl_dist.stages.cluster import Cluster
from gmp_atl_dist.stages.frame_index import frame_index
from gmp_atl_dist.stages.label import HISTOGRAM_NAME, Label
from gmp_atl_dist.stages.label_plan import plan_labels
from gmp_atl_dist.stages.mfcc import Mfcc
from gmp_atl_dist.stages.pretrain import Pretrain
from gmp_atl_dist.store.artifact import Artifact, find_artifact, list_artifacts
from gmp_atl_dist.store.codebooks import read_codebooks
from gmp_atl_dist.store.features import feature_source_parts, read_features
from gmp_atl_dist.store.labels import read_labels
from gmp_atl_dist.store.readers import read_curves, read_utterances
from gmp_atl_dist.store.training_set import TrainingSet

pytest_plugins = ["support.one_process"]

PRETRAIN = {
    "iterations": 2,
    "steps": 2,
    "second_steps": 3,
    "k": [6, 4],
    "layer": 2,
    "batch_s": 3.0,
    "dropout": 0.0,
    "projection_dim": 16,
}
NAMES = (
    *("mfcc", "cluster1", "label1", "pretrain1"),
    *("extract2", "cluster2", "label2", "pretrain2"),
)


@dataclass
class Ran:
    config: RunConfig
    context: Context
    report: Artifact

    def made(self, name: str) -> Artifact:
        """The artefact of a stage of the one fold."""
        kind = name.rstrip("12")
        identity = self.report.manifest.inputs[f"fold1/{name}"]
        (key,) = [
            k
            for k in list_artifacts(self.context.store)
            if (k.kind, k.fingerprint) == (kind, identity)
        ]
        found = find_artifact(self.context.store, key)
        assert found is not None
        return found


def experiment(tiny: Tiny, root: Path, **sections: dict[str, object]) -> RunConfig:
    return tiny_experiment(tiny.folder, root, **{"pretrain": PRETRAIN, **sections})


@pytest.fixture(scope="module")
def ran(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    root = tmp_path_factory.mktemp("pretrained") / "root"
    config = experiment(tiny, root, finetune={"batch_s": 3.0, "epochs": 1, "embedding_dim": 16})
    context = context_of(root, tiny.folder, config)
    with no_ray():
        return Ran(config, context, execution.run_pipeline(config, context))


def test_both_iterations_are_whole_and_come_first(ran: Ran) -> None:
    for name in NAMES:
        assert ran.made(name).verify() == [], name
    rows = stage_survey.survey(ran.config, ran.context)
    assert [row.label.split()[0] for row in rows] == list(stage_order.all_stage_names())
    assert {row.state for row in rows} == {"done"}
    for name in ("warmup", "retrain"):
        assert ran.made(name).manifest.inputs["backbone"] == ran.made("pretrain2").identity


def test_codebooks_are_of_mfcc_and_then_of_a_layer(ran: Ran) -> None:
    (first,) = read_codebooks(ran.made("cluster1"))
    (second,) = read_codebooks(ran.made("cluster2"))
    assert (first.layer, first.centroids_KD.shape) == (MFCC_LAYER, (6, MFCC_DIM))
    assert (second.layer, second.centroids_KD.shape) == (2, (4, 64))


def test_iterations_have_their_own_lengths(ran: Ran) -> None:
    for name, updates in (("pretrain1", 2), ("pretrain2", 3)):
        assert json.loads(ran.made(name).read_file("training.json"))["updates"] == updates


def test_test_speakers_are_unheard(ran: Ran, tiny: Tiny) -> None:
    speakers = {u.utterance_id: u.speaker for u in read_utterances(tiny.corpus)}
    for name, layer in (("mfcc", MFCC_LAYER), ("extract2", 2)):
        features = ran.made(name)
        heard = {
            u.utterance_id
            for part in feature_source_parts(features, layer)
            for u in read_features(features, part, layer)
        }
        assert {speakers[i] for i in heard} == set(FOLD.train_speakers)
    for name in ("label1", "label2"):
        assert {speakers[i] for i in read_labels(ran.made(name))} == set(FOLD.train_speakers)


def test_the_report_shows_accuracy_against_the_largest_cluster(ran: Ran) -> None:
    report = json.loads(ran.report.read_file("report.json"))
    (fold,) = report["folds"]
    for number in (1, 2):
        (counts,) = json.loads(ran.made(f"label{number}").read_file(HISTOGRAM_NAME))["counts"]
        curves = fold["curves"][f"pretrain{number}"]
        shares = {value for _, value in curves["largest_cluster_share"]}
        assert shares == {max(counts) / sum(counts)}
        accuracy = read_curves(ran.made(f"pretrain{number}"))["accuracy_scale0"]
        assert curves["accuracy_scale0"] == [list(point) for point in accuracy]
    assert {name: fold["artefacts"][name] for name in NAMES} == {
        name: ran.made(name).key.fingerprint for name in NAMES
    }
    assert report["seeds"]["pretrain"] == 0
    assert "The same holds for the pretraining" in report["protocol"]["statement"]
    assert "<h3>pretrain2</h3>" in ran.report.read_file("report.html").decode()


def first_labels(context: Context, training: TrainingSet) -> tuple[Artifact, Artifact]:
    """(codebooks, labels) of iteration 1."""
    clusters = PretrainConfig.model_validate(PRETRAIN).clusters(1)
    plan = plan_labels(LabelConfig(), clusters, training)
    features = finish(Mfcc(ExtractConfig(), training), context)
    books = finish(Cluster(clusters, features, training, plan, 1), context)
    return books, finish(Label(features, books, training, 1), context)


@pytest.mark.usefixtures("in_process")
def test_the_same_again_gives_the_same_bytes(tiny: Tiny, tmp_path: Path) -> None:
    found: list[list[tuple[str, str]]] = []
    training = TrainingSet(tiny.corpus, FOLD.training_speakers())
    config = PretrainConfig.model_validate(PRETRAIN).training(1)
    for root in (tmp_path / "a", tmp_path / "b"):
        context = tiny.with_root(root)
        books, labels = first_labels(context, training)
        model = finish(Pretrain(config, tiny.backbone, books, labels, training, 1), context)
        receipts = [r for made in (books, labels, model) for r in made.manifest.receipts]
        found.append([(r.name, r.sha256) for r in receipts])
    assert found[0] == found[1]


@pytest.mark.usefixtures("in_process")
def test_mfcc_are_stored_in_the_form_of_features(tiny: Tiny, tmp_path: Path) -> None:
    training = TrainingSet(tiny.corpus, FOLD.training_speakers())
    config = ExtractConfig(part_frames=200)
    features = finish(Mfcc(config, training), tiny.with_root(tmp_path))
    parts = feature_source_parts(features, MFCC_LAYER)
    rows = [u for part in parts for u in read_features(features, part, MFCC_LAYER)]
    frames = dict(
        zip(
            *(frame_index(training)[c].to_pylist() for c in ("utterance_id", "num_frames")),
            strict=True,
        )
    )
    assert len(parts) > 1
    assert {u.utterance_id: u.frames_TD.shape for u in rows} == {
        key: (count, MFCC_DIM) for key, count in frames.items()
    }
    assert all(u.frames_TD.dtype == np.float16 for u in rows)


@pytest.mark.usefixtures("in_process")
def test_speech_of_others_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    context = tiny.with_root(tmp_path)
    everybody, clean = (
        TrainingSet(
            tiny.corpus, FOLD.transductive_speakers() if transductive else FOLD.training_speakers()
        )
        for transductive in (True, False)
    )
    features = finish(Mfcc(ExtractConfig(), everybody), context)
    clusters = PretrainConfig.model_validate(PRETRAIN).clusters(1)
    plan = plan_labels(LabelConfig(), clusters, clean)
    refused = pytest.raises(CorpusError, match=r"'Ses0[12].*' is not of a training speaker")

    with refused:
        finish(Cluster(clusters, features, clean, plan, 1), context)
    books = finish(Cluster(clusters, features, everybody, plan, 1), context)
    with refused:
        finish(Label(features, books, clean, 1), context)
    labels = finish(Label(features, books, everybody, 1), context)
    # Labels of others do no harm: the training itself takes the fold's own utterances.
    config = PretrainConfig.model_validate(PRETRAIN).training(1)
    recipe = Pretrain(config, tiny.backbone, books, labels, clean, 1).recipe()
    assert {u.speaker for u in recipe.utterances} == set(FOLD.train_speakers)


@pytest.mark.usefixtures("in_process")
def test_more_clusters_than_frames_are_named(tiny: Tiny, tmp_path: Path) -> None:
    training = TrainingSet(tiny.corpus, FOLD.training_speakers())
    clusters = PretrainConfig(k=(100_000, 5)).clusters(1)
    plan = plan_labels(LabelConfig(), clusters, training)
    context = tiny.with_root(tmp_path)
    features = finish(Mfcc(ExtractConfig(), training), context)
    with pytest.raises(ConfigError, match=r"pretrain\.k\[0\] \(layer 0, all\): k = 100000 is more"):
        finish(Cluster(clusters, features, training, plan, 1), context)


@pytest.mark.usefixtures("in_process")
def test_a_stage_of_pretraining_runs_by_its_name(tiny: Tiny, tmp_path: Path) -> None:
    config = experiment(tiny, tmp_path, pretrain={**PRETRAIN, "iterations": 1})
    context = context_of(tmp_path, tiny.folder, config)
    for name in ("ingest", "backbone", "mfcc"):
        execution.run_stage(config, context, name)
    states = {row.label: row.state for row in stage_survey.survey(config, context)}
    assert (states["mfcc fold1"], states["cluster1 fold1"]) == ("done", "waiting")
    assert states["pretrain1 fold1"] == "waiting"
    assert "extract2 fold1" not in states
    with pytest.raises(
        ArtifactError, match="cluster1 fold1 is not done, and pretrain1 needs it; run"
    ):
        execution.run_stage(config, context, "pretrain1")
    with pytest.raises(ConfigError, match=r"'pretrain2' is not .*: pretrain\.iterations = 1"):
        execution.run_stage(config, context, "pretrain2")


@pytest.mark.usefixtures("in_process")
def test_a_layer_that_the_model_lacks_stops_before_training(tiny: Tiny, tmp_path: Path) -> None:
    config = experiment(tiny, tmp_path, pretrain={**PRETRAIN, "layer": 9})
    with pytest.raises(ModelError, match=r"pretrain\.layer: \[9\] of \[9\] are not in random:tiny"):
        execution.run_pipeline(config, context_of(tmp_path, tiny.folder, config))
