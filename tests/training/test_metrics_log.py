"""What a training leaves for TensorBoard and MLflow, also when it is killed and goes on."""

from __future__ import annotations

import importlib.util
import logging
import struct
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from support.one_process import FOLD, OneRank, Stopped, Tiny, finish, no_ray, train_here
from tensorboardX.proto import event_pb2

from gmp_atl_dist.config import Json, TrainWorkersConfig, WarmupConfig
from gmp_atl_dist.config.file import parse_config
from gmp_atl_dist.errors import ArtifactError, ConfigError
from gmp_atl_dist.recipes.warmup import WarmupRecipe
from gmp_atl_dist.stages.warmup import Warmup
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.readers import read_curves
from gmp_atl_dist.store.writer import ArtifactWriter
from gmp_atl_dist.tags import Tags
from gmp_atl_dist.training import events, mlflow_log
from gmp_atl_dist.training.events import EventLog, event_prefix
from gmp_atl_dist.training.loop import TrainJob
from gmp_atl_dist.training.metrics_log import MetricsLogs, open_logs
from gmp_atl_dist.training.mlflow_log import MlflowLog

pytest_plugins = ["support.one_process"]

KEY = ArtifactKey("warmup", "f" * 64)
PACE = {"audio_h_per_h", "data_wait_share", "checkpoint_stall_share"}


def job(tiny: Tiny, root: Path, **workers: Json) -> TrainJob:
    """Nine updates of warm-up."""
    config = WarmupConfig.model_validate(
        {"batch_s": 3.0, "lr": 1e-3, "dropout": 0.1, "epochs": 3, "freeze_conv": True}
    )
    recipe = WarmupRecipe(config, tiny.corpus, tiny.backbone, FOLD.training_speakers())
    settings = TrainWorkersConfig.model_validate({"checkpoint_every_steps": 100, **workers})
    return TrainJob(recipe, Store.open(str(root)), KEY, settings)


def sealed(done: TrainJob) -> Artifact:
    return ArtifactWriter(done.store, done.key).seal(version=1, science={}, inputs={})


def read_events(data: bytes) -> Iterator[Any]:
    """A TFRecord: length, its checksum, message, its checksum."""
    while data:
        (length,) = struct.unpack_from("<Q", data)
        event = event_pb2.Event()  # pyright: ignore[reportAttributeAccessIssue]
        event.ParseFromString(data[12 : 12 + length])
        yield event
        data = data[16 + length :]


def shown(store: Store, key: ArtifactKey = KEY) -> dict[str, list[tuple[int, float]]]:
    """(step, value) by tag as TensorBoard shows them: files by name, each START forgets what follows."""
    points: list[tuple[str, int, float]] = []
    for entry in store.list(event_prefix(key)):
        for event in read_events(store.read(entry.path)):
            if event.HasField("session_log"):
                points = [p for p in points if p[1] < event.step]
            points += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
    found: dict[str, list[tuple[int, float]]] = {}
    for tag, step, value in points:
        found.setdefault(tag, []).append((step, value))
    return found


def test_every_measure_of_the_curves_is_in_the_events(tiny: Tiny, tmp_path: Path) -> None:
    made = job(tiny, tmp_path / "root")
    train_here(made, OneRank())
    curves, found = read_curves(sealed(made)), shown(made.store)

    assert set(found) == set(curves) | PACE
    assert {"loss", "gradient_norm", "learning_rate", "emotion_accuracy"} <= set(curves)
    for name, points in curves.items():
        assert [step for step, _ in found[name]] == list(range(1, 10))
        np.testing.assert_allclose(found[name], points, rtol=1e-6, err_msg="fp32 of the same")
    for name in PACE:
        assert [step for step, _ in found[name]] == list(range(1, 10))
    assert all(0 <= value <= 1 for _, value in found["data_wait_share"])
    assert all(value > 0 for _, value in found["audio_h_per_h"])


def test_curves_go_on_after_a_kill(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Names of files begin with the second. Real attempts do not share one, these two may.
    numbers = count(1)
    ordered = SimpleNamespace(uuid4=lambda: UUID(int=next(numbers) << 96))
    monkeypatch.setattr("gmp_atl_dist.training.events.uuid", ordered)
    made = job(tiny, tmp_path / "root", checkpoint_every_steps=2)
    with pytest.raises(Stopped):
        train_here(made, OneRank(stop_after=1))
    (first,) = made.store.list(event_prefix(KEY))
    before = [step for step, _ in shown(made.store)["loss"]]
    train_here(made, OneRank())
    after = shown(made.store)

    assert before == list(range(1, before[-1] + 1)), "all up to the kill was uploaded"
    assert len(made.store.list(event_prefix(KEY))) == 2, "each attempt has a file of its own"
    assert made.store.read(first.path), "the first is still there"
    curves = read_curves(sealed(made))
    for name in [*curves, *PACE]:
        assert [step for step, _ in after[name]] == list(range(1, 10)), "each step once"
    np.testing.assert_allclose(after["loss"], curves["loss"], rtol=1e-6)


def test_logs_are_no_part_of_the_artefact(tiny: Tiny, tmp_path: Path) -> None:
    made = job(tiny, tmp_path / "root")
    train_here(made, OneRank())
    artifact = sealed(made)
    assert all("tfevents" not in name for name in artifact.receipts)
    assert artifact.verify() == []
    made.store.delete(event_prefix(KEY))
    assert artifact.verify() == []


class RefusesLogs(Store):
    """A store that takes everything but what lies below logs/."""

    def put(self, path: str, data: bytes | memoryview) -> None:
        if path.startswith("logs/"):
            raise ArtifactError(f"cannot write {path!r}: quota")
        super().put(path, data)


def test_a_store_that_refuses_logs_stops_no_training(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(events, "FLUSH_EVERY_S", 0.0)
    whole, made = job(tiny, tmp_path / "whole"), job(tiny, tmp_path / "root")
    train_here(whole, OneRank())
    refusing = TrainJob(made.recipe, RefusesLogs(str(tmp_path / "root")), KEY, made.workers)
    train_here(refusing, OneRank())

    assert sealed(refusing).receipts == sealed(whole).receipts, "the same bytes"
    said = [r for r in caplog.records if "events cannot be stored" in r.getMessage()]
    assert [r.levelno for r in said] == [logging.WARNING], "once, not at each of ten uploads"
    assert "quota" in said[0].getMessage()


def test_it_uploads_now_and_then_without_being_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(str(tmp_path / "root"))
    monkeypatch.setattr(events, "FLUSH_EVERY_S", 0.0)
    log = EventLog(store, KEY, tmp_path, after_step=0)
    log.log(1, {"loss": 2.0})
    log._uploads.submit(int).result()  # one thread: what was submitted before it is done
    assert shown(store) == {"loss": [(1, 2.0)]}
    monkeypatch.setattr(events, "FLUSH_EVERY_S", 1e9)
    log.log(2, {"loss": 1.0})
    log._uploads.submit(int).result()
    assert shown(store) == {"loss": [(1, 2.0)]}
    log.close()
    assert shown(store) == {"loss": [(1, 2.0), (2, 1.0)]}


def test_a_log_that_fails_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    class Full:
        def log(self, step: int, metrics: object) -> None:
            raise OSError("no space left on device")

        def flush(self) -> None:
            raise OSError("no space left on device")

        close = flush

    logs = MetricsLogs([Full()])
    logs.log(1, {"loss": 1.0})
    logs.flush()
    logs.close()
    assert [r.getMessage() for r in caplog.records] == ["Full: OSError, training continues"] * 3


def test_other_ranks_log_nothing(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "root"))
    logs = open_logs(store, KEY, TrainWorkersConfig(), tmp_path, rank=1, after_step=0)
    logs.log(1, {"loss": 1.0})
    logs.close()
    assert store.list() == []


# MLflow


def test_metrics_go_to_mlflow_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_log, "find_spec", lambda _: object())
    log = MlflowLog("https://mlflow.example.org", "e", KEY)
    flushes: list[str] = []
    monkeypatch.setattr(log, "flush", lambda: flushes.append("flush"))
    monkeypatch.setattr(mlflow_log, "FLUSH_EVERY_S", 1e9)
    log.log(1, {"loss": 2.0})
    assert flushes == []
    monkeypatch.setattr(mlflow_log, "FLUSH_EVERY_S", 0.0)
    log.log(2, {"loss": 1.0})
    assert flushes == ["flush"]


def test_without_mlflow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_log, "find_spec", lambda _: None)
    workers = TrainWorkersConfig(mlflow_uri="https://mlflow.example.org")
    with pytest.raises(ConfigError, match=r"mlflow_uri is set.*install gmp_atl_dist\[mlflow\]"):
        open_logs(Store.open(str(tmp_path)), KEY, workers, tmp_path, rank=0, after_step=0)


def test_the_driver_misses_mlflow_before_anything_is_started(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_log, "find_spec", lambda _: None)
    train = TrainWorkersConfig(mlflow_uri="https://mlflow.example.org")
    settings = tiny.context.settings.model_copy(update={"train": train})
    stage = Warmup(WarmupConfig(), tiny.corpus, tiny.backbone, FOLD)
    with no_ray(), pytest.raises(ConfigError, match=r"install gmp_atl_dist\[mlflow\]"):
        finish(stage, replace(tiny.context, settings=settings))


@pytest.mark.parametrize("uri", ["https://me:secret@host/x", "http://token-secret@host"])
def test_credentials_are_refused_in_a_configuration_and_not_repeated(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"runtime\.train: mlflow_uri: .*_USERNAME") as caught:
        parse_config({"runtime": {"train": {"mlflow_uri": uri}}}, "x.toml")
    assert "secret" not in str(caught.value)


def test_an_mlflow_server_that_is_down_stops_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Down:
        def __init__(self, **_: object) -> None:
            raise ConnectionError("Authorization: Bearer secret-token")

    class Module:
        MlflowClient = Down

    monkeypatch.setattr(mlflow_log, "find_spec", lambda _: object())
    monkeypatch.setattr(mlflow_log, "import_module", lambda _: Module)
    log = MlflowLog("https://mlflow.example.org", "e", KEY)
    log.log(1, {"loss": 1.0})
    log.flush()
    log.close()
    (said,) = [r.getMessage() for r in caplog.records]
    assert "MLflow does not take metrics (ConnectionError)" in said
    assert "secret" not in said


needs_mlflow = pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is None,
    reason="mlflow is not installed; pip install 'gmp_atl_dist[mlflow]'",
)


@needs_mlflow
def test_a_resumed_training_goes_on_in_its_mlflow_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    first = MlflowLog(uri, "speech", KEY)
    first.log(1, {"loss": 3.0, "learning_rate": 1e-4})
    first.log(2, {"loss": 2.0})
    first.close()
    second = MlflowLog(uri, "speech", KEY)
    second.log(3, {"loss": 1.0})
    second.close()
    other = MlflowLog(uri, "speech", ArtifactKey("retrain", "e" * 64))
    other.log(1, {"loss": 9.0})
    other.close()

    client = import_module("mlflow").MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("speech")
    runs = {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {f"warmup {'f' * 12}", f"retrain {'e' * 12}"}
    run = runs[f"warmup {'f' * 12}"]
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert run.info.status == "FINISHED"


@needs_mlflow
def test_an_mlflow_run_is_called_as_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    log = MlflowLog(uri, "speech", KEY, Tags("demo-1a2b", "warmup", "fold2"))
    log.log(1, {"loss": 3.0})
    log.close()
    client = import_module("mlflow").MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("speech")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "demo-1a2b warmup fold2"
    names = {f"gmp_atl_dist.{name}" for name in ("run", "stage", "fold", "fingerprint")}
    assert {run.data.tags[name] for name in names} == {"demo-1a2b", "warmup", "fold2", "f" * 64}


def test_event_files_lie_in_a_folder_with_the_names_of_run_stage_and_fold() -> None:
    tags = Tags("demo-1a2b", "pretrain1", "fold2")
    assert event_prefix(KEY, tags) == f"logs/demo-1a2b/pretrain1-fold2-{'f' * 12}"
    assert event_prefix(KEY, Tags("demo", "warmup")) == f"logs/demo/warmup-{'f' * 12}"
    for run in ("", "../up", "a/b"):
        assert event_prefix(KEY, Tags(run, "warmup", "fold2")) == f"logs/warmup/{'f' * 64}"
