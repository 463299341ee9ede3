"""Where a whole run stands, and how long it takes by what was measured before."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.one_process import context_of, tiny_experiment

from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.execution import run_pipeline
from gmp_atl_dist.runs.estimate import ExpectedWork, Planned, Rates, earlier_rates
from gmp_atl_dist.runs.progress import RunProgress
from gmp_atl_dist.scheduling.demands import Held
from gmp_atl_dist.stages.base import Context, Stage
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.runs import RunRecord, StageRun, write_run

pytest_plugins = ["support.one_process"]


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def measured(name: str, duration_s: float, **more: float) -> StageRun:
    return StageRun.model_validate(
        {
            **{"label": name, "name": name, "kind": name, "fingerprint": "f", "state": "done"},
            **{"attempt": 0, "started_s": 1.0, "duration_s": duration_s},
            **more,
        }
    )


def record(config: RunConfig, *stages: StageRun, name: str = "before") -> RunRecord:
    return RunRecord(
        name=name,
        config_name="x",
        fingerprint="f",
        corpus_name="x",
        configuration=config.model_dump(mode="json"),
        stages=stages,
    )


def test_a_rate_is_applied_to_the_work_at_hand() -> None:
    rates = Rates(
        {
            "extract": measured("extract", 100, audio_s=1000),
            "retrain": measured("retrain", 60, updates=30),
            "cluster": measured("cluster", 7),
        }
    )
    assert rates.seconds(Planned("extract", "fold1", ExpectedWork(audio_s=250))) == 25
    assert rates.seconds(Planned("retrain", "fold1", ExpectedWork(updates=300))) == 600
    assert rates.seconds(Planned("cluster", "fold1")) == 7
    assert rates.seconds(Planned("label", "fold1")) is None
    rates.here_s["extract"] = 40
    assert rates.seconds(Planned("extract", "fold2", ExpectedWork(audio_s=250))) == 40


def test_a_stage_that_was_never_measured_gets_the_pace_of_another_one() -> None:
    rates = Rates({"warmup": measured("warmup", 300, audio_s=1000)})
    assert rates.seconds(Planned("retrain", "fold1", ExpectedWork(audio_s=2000))) == pytest.approx(
        600
    )
    # A pass without gradients costs a third.
    assert rates.seconds(Planned("extract", "fold1", ExpectedWork(audio_s=1000))) == pytest.approx(
        100
    )
    assert rates.seconds(Planned("cluster", "fold1")) is None
    rates.note_pace(Planned("finetune", "fold1", ExpectedWork(audio_s=10)), 6.0)
    assert rates.seconds(Planned("retrain", "fold1", ExpectedWork(audio_s=2000))) == pytest.approx(
        1200
    )


def test_rates_are_of_the_newest_run_with_the_same_model(tmp_path: Path) -> None:
    store, config = Store.open(str(tmp_path)), RunConfig()
    other = RunConfig.model_validate({"model": {"source": "random:tiny"}})
    write_run(store, record(config, measured("label", 5, started_s=10), name="old"))
    write_run(store, record(config, measured("label", 9, started_s=20), name="a-new"))
    write_run(store, record(other, measured("label", 1, started_s=30), name="tiny"))
    failed = measured("extract", 3).model_copy(update={"state": "failed"})
    stopped = measured("retrain", 30, updates=10).model_copy(update={"state": "stopped"})
    write_run(store, record(config, failed, stopped, name="z"))
    (tmp_path / "runs/damaged").mkdir()
    (tmp_path / "runs/damaged/run.json").write_text("{")
    rates = earlier_rates(store, config)
    assert rates.seconds(Planned("label")) == 9
    assert rates.seconds(Planned("extract")) is None
    assert rates.seconds(Planned("retrain", "", ExpectedWork(updates=100))) == 300


class Recorder:
    """What is shown at the start of each stage, and at its end."""

    def __init__(self, progress: RunProgress, clock: Clock) -> None:
        self._progress = progress
        self._clock = clock
        self.shown: list[str] = []

    def stage_found(self, stage: Stage, artifact: Artifact) -> None: ...

    def stage_started(self, stage: Stage, held: Held) -> None:
        self.shown.append(self._progress.run_lines(None)[0])
        self._clock.now_s += 60

    def stage_done(self, stage: Stage, artifact: Artifact) -> None: ...


def run(config: RunConfig, context: Context) -> tuple[list[str], RunProgress]:
    clock = Clock()
    progress = RunProgress(config, context, clock)
    recorder = Recorder(progress, clock)
    # The recorder's minute passes after the start and before the end, as the progress sees it.
    run_pipeline(config, context, (progress, recorder))
    return recorder.shown, progress


def test_a_run_says_where_it_stands(
    in_process: None, tiny_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_experiment(tiny_corpus, tmp_path / "root", folds={"run": [1, 2]})
    context = context_of(tmp_path / "root", tiny_corpus, config)
    shown, progress = run(config, context)

    assert shown[0] == "stage 1 of 10, no estimate yet for the whole run"
    assert shown[2] == "stage 3 of 10, fold 1 of 2, no estimate yet for the whole run"
    # In the second fold each stage has a rate, that of the first one; only the report has none.
    assert shown[9] == "stage 3 of 10, fold 2 of 2, whole run ends in more than 7 min"
    assert shown[15] == "stage 9 of 10, fold 2 of 2, whole run ends in more than 60 s"
    assert progress.left() == (0.0, [])
    out = capsys.readouterr().out
    assert "15 stages to run in 2 folds: no measured rate yet for warmup, extract, cluster, " in out
    assert all(line in out.splitlines() for line in shown)


def test_at_the_start_a_run_says_how_long_it_takes(
    in_process: None, tiny_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_experiment(tiny_corpus, tmp_path / "root")
    context = context_of(tmp_path / "root", tiny_corpus, config)
    names = ["warmup", "extract", "cluster", "label", "retrain", "finetune", "evaluate", "report"]
    earlier = [measured(name, 1800.0) for name in names]
    write_run(context.store, record(config, *earlier))
    shown, _ = run(config, context)

    out = capsys.readouterr().out
    assert "8 stages to run: about 4 h, by what stages took before below this root\n" in out
    assert shown[2] == "stage 3 of 10, fold 1 of 1, whole run ends in about 4 h"
    shown, _ = run(config, context)
    assert shown == []
    assert "to run" not in capsys.readouterr().out, "all was done before"
