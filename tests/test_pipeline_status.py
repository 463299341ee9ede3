"""Where stages stand, and running one of them at a time."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pyarrow as pa
import pytest
from support.one_process import FOLD, Tiny, context_of, tiny_experiment

from gmp_atl_dist import execution, stage_survey
from gmp_atl_dist.config import RunConfig, WarmupConfig
from gmp_atl_dist.errors import ArtifactError, ConfigError, ModelError
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.stages.base import Context, Pending, sealed
from gmp_atl_dist.stages.mapped import map_parts
from gmp_atl_dist.stages.warmup import Warmup
from gmp_atl_dist.store.checkpoints import CheckpointRecord
from gmp_atl_dist.store.manifest import ArtifactKey, Receipt, receipts_json
from gmp_atl_dist.store.progress import ProgressFile, ProgressSnapshot, read_progress
from gmp_atl_dist.store.writer import ArtifactWriter
from gmp_atl_dist.tags import Tags

pytest_plugins = ["support.one_process"]

FITTED = ("warmup", "extract", "cluster", "label", "retrain", "finetune", "evaluate")


@pytest.fixture
def experiment(tiny: Tiny, tmp_path: Path) -> RunConfig:
    return tiny_experiment(tiny.folder, tmp_path / "root", folds={"by": "session", "run": [1, 2]})


@pytest.fixture
def context(tiny: Tiny, experiment: RunConfig, in_process: None) -> Context:
    return context_of(Path(experiment.runtime.root), tiny.folder, experiment)


def states(experiment: RunConfig, context: Context) -> dict[str, str]:
    return {s.label: s.state for s in stage_survey.survey(experiment, context)}


def test_an_empty_root_waits_for_its_corpus(experiment: RunConfig, context: Context) -> None:
    (row,) = stage_survey.survey(experiment, context)
    assert (row.label, row.state, row.detail) == ("ingest", "waiting", "")
    assert len(row.fingerprint) == 64
    assert context.store.list() == [], "looking writes nothing"


def test_half_done(experiment: RunConfig, context: Context) -> None:
    for name in ("ingest", "backbone", "warmup"):
        execution.run_stage(experiment, context, name)
    waiting = {f"{kind} {fold}" for fold in ("fold1", "fold2") for kind in FITTED} | {"report"}
    done = {"ingest", "backbone", "warmup fold1", "warmup fold2"}

    assert states(experiment, context) == {
        **dict.fromkeys(waiting, "waiting"),
        **dict.fromkeys(done, "done"),
    }
    rows = {s.label: s for s in stage_survey.survey(experiment, context)}
    assert rows["warmup fold1"].detail.endswith(" MB")
    assert rows["warmup fold1"].fingerprint != rows["warmup fold2"].fingerprint
    # A progress file that was written just now is of a stage that runs; parts alone are not.
    retrain, label = rows["retrain fold1"], rows["extract fold2"]
    context.store.put(
        f"artifacts/cluster/{rows['cluster fold1'].fingerprint}/_progress.json",
        ProgressSnapshot(done=1, total=2, unit="parts", busy_share=0.5).model_dump_json().encode(),
    )
    context.store.put(
        f"artifacts/retrain/{retrain.fingerprint}/_progress.json",
        b'{"done": 3, "total": 9, "metrics": {"loss": 1.5}}',
    )
    writer = ArtifactWriter(context.store, ArtifactKey("extract", label.fingerprint))
    writer.put_file("anything", b"half of it")
    rows = {s.label: s for s in stage_survey.survey(experiment, context)}

    assert (rows["retrain fold1"].state, rows["retrain fold1"].detail) == (
        "running",
        "3/9 updates, loss 1.5",
    )
    assert rows["cluster fold1"].detail == "1/2 parts, busy 50 %"
    assert (rows["extract fold2"].state, rows["extract fold2"].detail) == ("stopped", "1 parts")
    fingerprint = rows["finetune fold2"].fingerprint
    saved = CheckpointRecord(folder="step-7", step=7, world_size=1, zero_stage=1, files=())
    context.store.put(
        f"checkpoints/{fingerprint}/step-7/_record.json", saved.model_dump_json().encode()
    )
    rows = {s.label: s for s in stage_survey.survey(experiment, context)}
    assert (rows["finetune fold2"].state, rows["finetune fold2"].detail) == (
        "stopped",
        "checkpoint at update 7",
    )


class Writes:
    """Writes half an hour of audio a task; one of them does not end well."""

    def __init__(self, out: ArtifactWriter) -> None:
        self._out = out

    def __call__(self, task: Task) -> str:
        if task.payload == "bad":
            raise ModelError("is bad")
        table = pa.table({"utterance": range(360)})
        return receipts_json([self._out.put_part(task.name, table, audio_s=1800)])


def test_a_mapped_stage_leaves_its_progress_until_it_is_done(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ProgressFile, "is_due", True)
    out = ArtifactWriter(context.store, ArtifactKey("label", "a" * 64))

    def run(*payloads: str) -> list[Receipt]:
        tasks = [Task(f"part-{i}", payload) for i, payload in enumerate(payloads)]
        workers = context.settings.label
        return map_parts(
            context, out, Tags(stage="label"), tasks, Writes, out, workers, lambda name: [name]
        )

    with pytest.raises(ModelError):
        run("", "", "bad", "")
    seen = read_progress(context.store, out.key)
    assert seen is not None
    assert re.match(r"2/4 parts, ends in \d\d:\d\d:\d\d, 1\.00 h of 2\.00 h, ", seen.describe())
    assert seen.describe(time.time() + 300).endswith(", last seen 5 min ago")

    assert sorted(r.name for r in run("", "", "", "")) == [
        f"parts/part-{i}.parquet" for i in range(4)
    ]
    assert read_progress(context.store, out.key) is None


def test_a_stage_needs_those_before_it(experiment: RunConfig, context: Context) -> None:
    with pytest.raises(
        ArtifactError, match=r"ingest is not done, and warmup needs it; run gmp-atl"
    ):
        execution.run_stage(experiment, context, "warmup")
    execution.run_stage(experiment, context, "ingest")
    assert states(experiment, context) == {"ingest": "done", "backbone": "waiting"}
    execution.run_stage(experiment, context, "backbone")
    with pytest.raises(ArtifactError, match=r"warmup fold1 is not done, and extract needs it"):
        execution.run_stage(experiment, context, "extract")


def test_a_stage_that_is_not_known_is_refused(experiment: RunConfig, context: Context) -> None:
    with pytest.raises(ConfigError, match=r"stage 'cook' is not known; known: ingest, backbone"):
        execution.run_stage(experiment, context, "cook")


def test_layers_that_the_model_lacks_stop_before_training(
    tiny: Tiny, tmp_path: Path, in_process: None
) -> None:
    experiment = tiny_experiment(
        tiny.folder,
        tmp_path,
        extract={"layers": [3, 9]},
        cluster={"scales": [{"layer": 9, "k": 4}]},
    )
    with pytest.raises(ModelError, match=r"extract\.layers: \[9\] of \[3, 9\]"):
        execution.run_pipeline(experiment, context_of(tmp_path, tiny.folder, experiment))


def test_what_is_not_there_cannot_be_read(tiny: Tiny) -> None:
    stage = Warmup(WarmupConfig(), tiny.corpus, tiny.backbone, FOLD)
    with pytest.raises(
        ArtifactError, match=f"warmup {stage.key.fingerprint[:12]} does not exist yet"
    ):
        sealed(Pending(stage))


def test_a_damaged_manifest_is_told(experiment: RunConfig, context: Context) -> None:
    execution.run_stage(experiment, context, "ingest")
    (row, *_) = stage_survey.survey(experiment, context)
    context.store.put(f"artifacts/ingest/{row.fingerprint}/_manifest.json", b"{")
    with pytest.raises(ArtifactError, match="is not a manifest"):
        stage_survey.survey(experiment, context)
