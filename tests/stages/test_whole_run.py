"""Every stage one after the other in this process, and what the report says of it."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile as sf
from sklearn.metrics import balanced_accuracy_score, confusion_matrix
from support.one_process import context_of, no_ray, tiny_experiment

from gmp_atl_dist import execution, pipeline, stage_order
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.records import GENDERS
from gmp_atl_dist.report.content import ReportContent
from gmp_atl_dist.report.html import render_html
from gmp_atl_dist.report.protocol import Protocol
from gmp_atl_dist.report.sweep_building import sweep_content
from gmp_atl_dist.report.sweep_content import SweepContent
from gmp_atl_dist.report.sweep_html import render_sweep_html, render_sweep_json
from gmp_atl_dist.report.sweep_input import ArmReports, SeedReports
from gmp_atl_dist.report.sweep_stored import stored_cell
from gmp_atl_dist.stages.base import Context
from gmp_atl_dist.stages.evaluate import Prediction, read_predictions
from gmp_atl_dist.stages.report_errors import read_samples
from gmp_atl_dist.stages.report_page import run_page
from gmp_atl_dist.statistics.bootstrap import Resampling
from gmp_atl_dist.store.artifact import Artifact, find_artifact, list_artifacts
from gmp_atl_dist.store.features import feature_source_parts, read_features
from gmp_atl_dist.store.labels import read_labels
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.readers import read_emotions, read_utterances
from gmp_atl_dist.store.runs import RunRecord, StageRun

if TYPE_CHECKING:
    from support.s3_server import S3Server

pytest_plugins = ["support.one_process"]


@dataclass
class Ran:
    """A run and its artefacts by kind."""

    config: RunConfig
    context: Context
    report: Artifact
    made: dict[str, Artifact] = field(default_factory=dict)

    @property
    def json(self) -> dict[str, dict]:
        return json.loads(self.report.read_file("report.json"))


BROKEN = "Ses03F_impro01_F001"


def run(folder: Path, root: str | None = None, **sections: dict[str, object]) -> Ran:
    root = root or str(folder / "root")
    config = tiny_experiment(
        folder / "corpus",
        root,
        corpus={"max_bad_fraction": 0.025, "part_audio_s": 5},
        **sections,
    )
    context = context_of(root, folder / "corpus", config)
    with no_ray():
        report = execution.run_pipeline(config, context)
    ran = Ran(config, context, report)
    inputs = {name.rpartition("/")[2]: i for name, i in report.manifest.inputs.items()}
    for key in list_artifacts(context.store):
        artifact = find_artifact(context.store, key)
        assert artifact is not None
        if inputs.get(key.kind) == artifact.identity:
            ran.made[key.kind] = artifact
    return ran


@pytest.fixture(scope="module")
def folder(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a corpus with one broken recording, and of the store."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(tiny_corpus, folder / "corpus")
    (broken,) = (folder / "corpus").rglob(f"{BROKEN}.wav")
    broken.write_bytes(broken.read_bytes()[:100])
    return folder


@pytest.fixture(scope="module")
def clean(folder: Path) -> Ran:
    return run(folder)


@pytest.fixture(scope="module")
def transductive(folder: Path, clean: Ran) -> Ran:
    return run(folder, folds={"protocol": "transductive"})


@pytest.fixture(scope="module")
def peek(folder: Path, transductive: Ran) -> Ran:
    return run(folder, folds={"protocol": "peek"})


def test_every_stage_left_one_artefact(clean: Ran, transductive: Ran) -> None:
    assert set(clean.made) == set(stage_order.stage_names(clean.config)) - {"report"}
    for artifact in clean.made.values():
        assert artifact.verify() == []


def test_scores_are_those_of_the_stored_predictions(clean: Ran) -> None:
    predictions = read_predictions(clean.made["evaluate"])
    classes = list(read_emotions(clean.made["ingest"]))
    true = [classes.index(p.emotion) for p in predictions]
    predicted = [classes.index(p.predicted) for p in predictions]
    (fold,) = clean.json["folds"]
    scores = fold["outcome"]["scores"]

    assert len(predictions) == 8
    assert {p.speaker for p in predictions} == {"Ses01F", "Ses01M"}
    assert scores["war"] == pytest.approx(np.mean(np.equal(true, predicted)))
    assert scores["uar"] == pytest.approx(balanced_accuracy_score(true, predicted))
    assert (
        fold["outcome"]["confusion"] == confusion_matrix(true, predicted, labels=range(4)).tolist()
    )
    assert clean.json["pooled"]["outcome"]["scores"] == scores


def test_predictions_are_probabilities(clean: Ran) -> None:
    classes = read_emotions(clean.made["ingest"])

    def best(p: Prediction) -> str:
        return classes[int(np.argmax(p.probabilities))]

    for p in read_predictions(clean.made["evaluate"]):
        assert sum(p.probabilities) == pytest.approx(1)
        assert min(p.probabilities) >= 0
        assert p.predicted == best(p)


def test_only_training_speakers_were_heard(clean: Ran) -> None:
    speaker = {u.utterance_id: u.speaker for u in read_utterances(clean.made["ingest"])}
    unheard = {"Ses01F", "Ses01M", "Ses02F", "Ses02M"}
    features = clean.made["extract"]
    extracted = {
        u.utterance_id
        for layer in (2, 3)
        for part in feature_source_parts(features, layer)
        for u in read_features(features, part, layer)
    }
    assert extracted == set(read_labels(clean.made["label"]))
    assert {speaker[i] for i in extracted} == set(speaker.values()) - unheard


def test_the_report_says_what_there_was(clean: Ran) -> None:
    report = clean.json
    (fold,) = report["folds"]

    assert report["protocol"]["name"] == "clean"
    assert report["protocol"]["warning"] is None
    assert report["classes"] == ["neutral", "happy", "angry", "sad"]
    assert (fold["num_train"], fold["num_valid"], fold["num_test"]) == (23, 8, 8)
    assert set(fold["curves"]) == {"warmup", "retrain", "finetune"}
    assert fold["selection"] == {
        "rule": "last",
        "epoch": 2,
        "num_epochs": 2,
        "measure": None,
        "value": None,
    }
    assert report["corpus"]["per_gender"] == {"female": 19, "male": 20}
    shown = clean.config.model_dump(mode="json", exclude=clean.config.not_science)
    assert report["configuration"] == shown, "every key, those that are not hashed included"
    assert "runtime" not in report["configuration"]
    for book, k in zip(fold["codebooks"], (5, 7), strict=True):
        assert len(book["counts"]) == k
    for kind, artifact in clean.made.items():
        shown = fold["artefacts"].get(kind) or report["artefacts"][kind]
        assert shown in (artifact.key.fingerprint, artifact.identity)


def test_the_page_stands_alone(clean: Ran) -> None:
    page = clean.report.read_file("report.html").decode()
    assert "<html" in page
    assert 'src="http' not in page
    assert "fold1" in page


def test_a_second_run_does_nothing(
    folder: Path, clean: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in (pipeline.Ingest, pipeline.Warmup, pipeline.Cluster, pipeline.Report):
        monkeypatch.setattr(stage, "run", None)
    assert run(folder).report.key == clean.report.key


def test_runtime_settings_change_nothing(folder: Path, clean: Ran) -> None:
    again = run(
        folder,
        runtime={
            "corpus": str(folder / "corpus"),
            "extract": {"workers": 7},
            "train": {"workers": 3, "checkpoint_every_steps": 1, "gradient_checkpointing": True},
        },
    )
    assert again.report.key == clean.report.key


@pytest.fixture(params=["transductive", "peek"])
def leaky(request: pytest.FixtureRequest) -> Ran:
    return request.getfixturevalue(request.param)


def test_leaky_arms_are_other_artefacts_and_say_so(clean: Ran, leaky: Ran) -> None:
    name = leaky.config.folds.protocol
    same = {k for k in clean.made if clean.made[k].key == leaky.made[k].key}
    assert same == {"ingest", "backbone", "warmup"}

    expected = Protocol.of(name, "test" if name == "peek" else "last")
    found = leaky.json["protocol"]
    assert {**found, "statement": ""} == {**expected.model_dump(), "statement": ""}
    assert found["statement"] == (
        f"{expected.statement} The start model has random weights (size tiny, seed 0): it was trained on "
        f"nothing."
    )
    assert expected.warning is not None
    page = leaky.report.read_file("report.html").decode()
    assert expected.warning in page
    assert expected.warning not in clean.report.read_file("report.html").decode()
    heard = read_labels(leaky.made["label"])
    assert len(heard) == 39, "all speakers' audio"


def test_arms_share_only_what_is_the_same(transductive: Ran, peek: Ran) -> None:
    same = {k for k in peek.made if peek.made[k].key == transductive.made[k].key}
    assert same == set(stage_order.stage_names(peek.config)) - {"finetune", "evaluate", "report"}
    (fold,) = peek.json["folds"]
    assert fold["selection"]["rule"] == "test"
    assert fold["selection"]["measure"] == "UAR"
    points = dict(fold["curves"]["finetune"]["selection_uar"])
    assert fold["selection"]["value"] == max(points.values())


def test_an_epoch_is_selected_on_validation_speakers(folder: Path, clean: Ran) -> None:
    ran = run(folder, finetune={"select": "valid"})
    (fold,) = ran.json["folds"]
    training = json.loads(ran.made["finetune"].read_file("training.json"))

    assert fold["selection"]["rule"] == "valid"
    assert fold["selection"]["epoch"] == training["best_epoch"]
    assert ran.made["retrain"].key == clean.made["retrain"].key
    assert ran.made["finetune"].key != clean.made["finetune"].key
    prefix = ran.made["finetune"].key.prefix
    assert ran.context.store.list(f"{prefix}/candidates") == [], "cleaned up"


def test_dropped_recordings_are_in_the_report(clean: Ran) -> None:
    (dropped,) = clean.json["corpus"]["dropped"]

    assert BROKEN in dropped["item"]
    assert "cut short" in dropped["reason"]
    assert BROKEN in clean.report.read_file("report.html").decode()
    assert clean.json["corpus"]["num_utterances"] == 39


def test_other_codebooks_redo_what_follows(folder: Path, clean: Ran) -> None:
    ran = run(folder, cluster={"gender": "by_gender", "scales": [{"layer": 2, "k": 3}]})
    same = {k for k in clean.made if clean.made[k].key == ran.made[k].key}
    assert same == {"ingest", "backbone", "warmup", "extract"}
    (fold,) = ran.json["folds"]
    assert [(b["group"], b["k"]) for b in fold["codebooks"]] == [("female", 3), ("male", 3)]
    # Each codebook labels the frames of its own gender alone.
    frames = [sum(b["counts"]) for b in fold["codebooks"]]
    gender = {u.utterance_id: u.gender for u in read_utterances(ran.made["ingest"])}
    labels = read_labels(ran.made["label"])
    assert frames == [
        sum(len(scales[0]) for i, scales in labels.items() if gender[i] == g) for g in GENDERS
    ]


def test_on_s3_every_stage_makes_the_same_bytes(
    folder: Path, clean: Ran, s3_server: S3Server
) -> None:
    ran = run(folder, s3_server.new_uri())

    assert ran.made.keys() == clean.made.keys()
    for kind, artifact in ran.made.items():
        assert artifact.verify() == []
        expected = {name: r.sha256 for name, r in clean.made[kind].receipts.items()}
        assert {name: r.sha256 for name, r in artifact.receipts.items()} == expected, kind
    assert ran.report.read_files() == clean.report.read_files()
    entries = ran.context.store.list()
    assert not [entry.path for entry in entries if entry.path.startswith("checkpoints/")]
    for secret in (os.environ[name] for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")):
        assert not [e.path for e in entries if secret.encode() in ran.context.store.read(e.path)]


def test_the_report_can_be_made_anew(folder: Path, clean: Ran) -> None:
    files = clean.report.read_files()
    key: ArtifactKey = clean.report.key
    clean.context.store.delete(key.prefix)
    assert run(folder).report.read_files() == files


def test_the_report_has_a_verdict_groups_and_a_title_of_its_own(clean: Ran) -> None:
    content = clean.json
    verdict = content["pooled"]["verdict"]

    assert verdict["level"] in ("none", "weak"), "two test speakers are never clear"
    assert any("fewer than 5 speakers" in sentence for sentence in verdict["sentences"])
    assert content["title"] == "GMP-ATL on a corpus of 4 classes and 10 speakers"
    scores = content["pooled"]["outcome"]["scores"]
    assert content["calibration"]["accuracy"] == pytest.approx(scores["war"])
    predictions = content["predictions"]
    tops = [max(p) for p in predictions["probabilities"]]
    assert content["calibration"]["confidence"] == pytest.approx(sum(tops) / len(tops), abs=1e-4)
    assert [g["name"] for g in content["groups"]["genders"]] == ["female", "male"]
    speakers = {g["name"]: g for g in content["groups"]["speakers"]}
    assert set(speakers) == {"Ses01F", "Ses01M"}
    assert speakers["Ses01F"]["gender"] == "female"
    page = clean.report.read_file("report.html").decode()
    for sentence in verdict["sentences"]:
        assert sentence.replace(" %", "\u00a0%").replace("'", "&#39;") in page


def test_predictions_are_stored_as_a_table(clean: Ran) -> None:
    content = clean.json
    header, *lines = clean.report.read_file("predictions.csv").decode().splitlines()

    assert header.startswith("utterance_id,fold,speaker,gender,emotion,predicted,p_")
    assert len(lines) == content["folds"][0]["num_test"]
    wrong = sum(line.split(",")[4] != line.split(",")[5] for line in lines)
    assert content["num_errors"] == wrong
    assert content["predictions"]["utterances"] == [line.split(",")[0] for line in lines]


def test_errors_are_the_most_confident_first(clean: Ran) -> None:
    errors = clean.json["errors"]

    assert errors
    assert all(e["true"] != e["predicted"] for e in errors)
    assert [e["probability"] for e in errors] == sorted(
        (e["probability"] for e in errors), reverse=True
    )
    assert all(e["spectrogram"]["bands"] == 32 for e in errors)
    assert all(e["scales"] == [] for e in errors), "clustering did not use test audio"


def test_errors_have_frame_labels_where_clustering_used_test_audio(transductive: Ran) -> None:
    for error in transductive.json["errors"]:
        assert len(error["scales"]) == 2
        assert all(len(s["labels"]) == error["spectrogram"]["frames"] for s in error["scales"])


def test_examples_have_a_spectrogram_of_the_labelled_frames(clean: Ran) -> None:
    timelines = clean.json["folds"][0]["timelines"]

    assert timelines
    for example in timelines:
        assert {len(s["labels"]) for s in example["scales"]} == {example["spectrogram"]["frames"]}


def test_the_sealed_page_is_what_its_json_gives(clean: Ran) -> None:
    content = ReportContent.model_validate_json(clean.report.read_file("report.json"))

    assert render_html(content).encode() == clean.report.read_file("report.html")


def record_of(report: Artifact, ingest: ArtifactKey) -> RunRecord:
    stage = StageRun(
        label="ingest",
        name="ingest",
        kind="ingest",
        fingerprint=ingest.fingerprint,
        state="done",
        attempt=0,
        started_s=1.7e9,
        duration_s=3.0,
    )
    return RunRecord(
        name="tiny-1",
        config_name="tiny",
        fingerprint="a" * 64,
        corpus_name="Tiny",
        configuration={},
        stages=(stage,),
        report=report.key.fingerprint,
    )


def test_only_the_page_of_a_run_has_audio_and_only_if_allowed(clean: Ran) -> None:
    corpus = clean.made["ingest"]
    record = record_of(clean.report, corpus.key)

    silent = run_page(clean.report, record).decode()
    page = run_page(clean.report, record, audio=True).decode()

    assert "GMP-ATL on Tiny" in page
    assert "<audio" not in clean.report.read_file("report.html").decode()
    assert "<audio" not in silent
    clips = re.findall(r'<audio [^>]*src="data:audio/flac;base64,([^"]*)"', page)
    errors = clean.json["errors"]
    assert len(clips) == len(errors)
    (about,) = [u for u in read_utterances(corpus) if u.utterance_id == errors[0]["utterance_id"]]
    played, rate = sf.read(io.BytesIO(base64.b64decode(clips[0])), dtype="int16")
    assert rate == 16_000
    assert np.array_equal(played, read_samples(corpus, about)[: 5 * 16_000])


def test_a_run_whose_corpus_is_gone_has_a_page_without_audio(clean: Ran) -> None:
    gone = record_of(clean.report, ArtifactKey("ingest", "b" * 64))

    assert "<audio" not in run_page(clean.report, gone, audio=True).decode()


def test_real_reports_make_the_page_of_a_sweep(clean: Ran, transductive: Ran) -> None:
    arms = [
        ArmReports(name, "", (SeedReports("0", (stored_cell(ran.report),)),))
        for name, ran in (("clean", clean), ("transductive", transductive))
    ]
    content = sweep_content("arms", arms, corpus_name="tiny", how=Resampling(samples=100))

    for arm, ran in zip(content.arms, (clean, transductive), strict=True):
        assert arm.figures is not None
        pooled = ran.json["pooled"]["outcome"]["scores"]
        assert arm.figures.scores["uar"].over_seeds.mean == pytest.approx(pooled["uar"])
        assert arm.cells[0].corpus == ran.made["ingest"].identity
        for kind in ("finetune", "retrain"):
            assert arm.cells[0].artefacts[kind] == ran.made[kind].key.fingerprint
    # Warm-up uses no test audio, so both arms share it.
    fingerprints = [arm.cells[0].artefacts["warmup"] for arm in content.arms]
    assert fingerprints[0] == fingerprints[1]
    sizes = [sum(r.bytes for r in ran.made["warmup"].manifest.receipts) for ran in (clean,)]
    assert content.cost.size_bytes is not None
    assert content.cost.size_bytes > sizes[0] > 0
    assert {curve.stage for curve in content.curves} >= {"warmup", "retrain", "finetune"}
    page = render_sweep_html(content)
    assert "transductive protocol." in page
    assert page == render_sweep_html(SweepContent.model_validate_json(render_sweep_json(content)))
