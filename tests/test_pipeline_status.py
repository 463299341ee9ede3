"""Where stages stand, and running one of them at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
from one_process import Tiny, context_of, tiny_experiment

from gmp_atl_dist import pipeline
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.errors import ArtifactError, ConfigError, ModelError
from gmp_atl_dist.stages.base import Context, Pending, sealed
from gmp_atl_dist.store.artifact import ArtifactKey

pytest_plugins = ["one_process"]

FITTED = ("warmup", "extract", "cluster", "label", "retrain", "finetune", "evaluate")


@pytest.fixture
def experiment(tiny: Tiny, tmp_path: Path) -> RunConfig:
    return tiny_experiment(tiny.folder, tmp_path / "root", folds={"by": "session", "run": [1, 2]})


@pytest.fixture
def context(tiny: Tiny, experiment: RunConfig, in_process: None) -> Context:
    return context_of(Path(experiment.runtime.root), tiny.folder, experiment)


def states(experiment: RunConfig, context: Context) -> dict[str, str]:
    return {s.label: s.state for s in pipeline.survey(experiment, context)}


def test_an_empty_root_waits_for_its_corpus(experiment: RunConfig, context: Context) -> None:
    (row,) = pipeline.survey(experiment, context)
    assert (row.label, row.state, row.detail) == ("ingest", "waiting", "")
    assert len(row.fingerprint) == 64
    assert context.store.list() == [], "looking writes nothing"


def test_half_done(experiment: RunConfig, context: Context) -> None:
    for name in ("ingest", "backbone", "warmup"):
        pipeline.run_stage(experiment, context, name)
    waiting = {f"{kind} {fold}" for fold in ("fold1", "fold2") for kind in FITTED} | {"report"}
    done = {"ingest", "backbone", "warmup fold1", "warmup fold2"}

    assert states(experiment, context) == {
        **dict.fromkeys(waiting, "waiting"),
        **dict.fromkeys(done, "done"),
    }
    rows = {s.label: s for s in pipeline.survey(experiment, context)}
    assert rows["warmup fold1"].detail.endswith(" MB")
    assert rows["warmup fold1"].fingerprint != rows["warmup fold2"].fingerprint
    # What comes next is started by a progress file, or by a part.
    retrain, label = rows["retrain fold1"], rows["extract fold2"]
    context.store.put(
        f"artifacts/retrain/{retrain.fingerprint}/_progress.json",
        b'{"done": 3, "total": 9, "measures": {"loss": 1.5}}',
    )
    writer = pipeline.ArtifactWriter(context.store, ArtifactKey("extract", label.fingerprint))
    writer.put_file("anything", b"half of it")
    rows = {s.label: s for s in pipeline.survey(experiment, context)}

    assert (rows["retrain fold1"].state, rows["retrain fold1"].detail) == (
        "started",
        "update 3 of 9, loss 1.5",
    )
    assert (rows["extract fold2"].state, rows["extract fold2"].detail) == ("started", "1 parts")


def test_a_stage_needs_those_before_it(experiment: RunConfig, context: Context) -> None:
    with pytest.raises(
        ArtifactError, match=r"ingest is not done, and warmup needs it; run gmp-atl"
    ):
        pipeline.run_stage(experiment, context, "warmup")
    pipeline.run_stage(experiment, context, "ingest")
    assert states(experiment, context) == {"ingest": "done", "backbone": "waiting"}
    pipeline.run_stage(experiment, context, "backbone")
    with pytest.raises(ArtifactError, match=r"warmup fold1 is not done, and extract needs it"):
        pipeline.run_stage(experiment, context, "extract")


def test_a_stage_that_is_not_known_is_refused(experiment: RunConfig, context: Context) -> None:
    with pytest.raises(ConfigError, match=r"stage 'cook' is not known; known: ingest, backbone"):
        pipeline.run_stage(experiment, context, "cook")


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
        pipeline.run_pipeline(experiment, context_of(tmp_path, tiny.folder, experiment))


def test_what_is_not_there_cannot_be_read() -> None:
    with pytest.raises(ArtifactError, match="extract abcabcabcabc is not there yet"):
        sealed(Pending(ArtifactKey("extract", "abc" * 20)))


def test_a_damaged_manifest_is_told(experiment: RunConfig, context: Context) -> None:
    pipeline.run_stage(experiment, context, "ingest")
    (row, *_) = pipeline.survey(experiment, context)
    context.store.put(f"artifacts/ingest/{row.fingerprint}/_manifest.json", b"{")
    with pytest.raises(ArtifactError, match="is not a manifest"):
        pipeline.survey(experiment, context)
