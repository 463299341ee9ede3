"""Sweeps on a real Ray: killed and resumed as a job, and side by side on simulated nodes."""

from __future__ import annotations

import os
import shlex
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from support.local_ray import TESTS, local_nodes
from support.one_process import context_of
from support.sweeps import write_sweep_files

from gmp_atl_dist.config.sweep import load_sweep
from gmp_atl_dist.execution import open_context
from gmp_atl_dist.ray_api.jobs import Jobs
from gmp_atl_dist.runs.names import read_runs
from gmp_atl_dist.scheduling.walks import MethodRun
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.runs import StageRun
from gmp_atl_dist.sweeps.planning import PlannedStage, look_up_shared, plan_stages
from gmp_atl_dist.sweeps.record import read_sweep
from gmp_atl_dist.sweeps.running import run_sweep
from ray_jobs.local import private_head

pytest_plugins = ["support.one_process"]
# Some ten minutes each, most of them for starting workers.
pytestmark = [pytest.mark.nightly, pytest.mark.timeout(2400)]

SCRIPT = TESTS.parent / "ray_jobs" / "run_sweep.py"
ARMS = """
[[arms]]
name = "plain"
[[arms]]
name = "ce"
set = { "finetune.loss" = "cross_entropy" }
[[arms]]
name = "mean"
set = { "finetune.pooling" = "mean" }
"""


def until(condition: Callable[[], bool], what: str, limit_s: float = 900) -> None:
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s, f"no {what} after {limit_s:g} s"
        time.sleep(0.2)


def sealed(root: Path) -> Counter[str]:
    return Counter(p.parent.parent.name for p in root.glob("artifacts/*/*/_manifest.json"))


def drivers() -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            if str(SCRIPT) in words and "python" in Path(words[0]).name:
                found.append(process)
    return found


def missing(path: Path, label: str) -> list[PlannedStage]:
    """The stages with this label that are not done."""
    sweep = load_sweep(path)
    with open_context(sweep.config) as context:
        runs = [MethodRun(one.config, context, name=one.label) for one in sweep.runs]
        known: dict[str, Artifact] = {}
        for run in runs:
            look_up_shared(run, None, known)
        return [stage for stage in plan_stages(runs).to_run if stage.label == label]


def test_a_job_that_is_killed_amid_a_sweep_is_resumed(
    tiny_corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path, root = write_sweep_files(tmp_path, tiny_corpus, ARMS, seeds=2), tmp_path / "root"
    monkeypatch.setenv("PYTHONPATH", str(TESTS.parent))
    with private_head(num_cpus=2) as head:
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, head.env[name])
        jobs = Jobs(head.url, head.token)
        command = shlex.join([head.python, str(SCRIPT), "--config", str(path)])
        jobs.submit("sweep", command)
        until(lambda: sealed(root)["evaluate"] >= 2, "evaluated cell")
        (driver,) = drivers()
        driver.kill()
        until(lambda: not drivers(), "end of the driver")
        half = sealed(root)
        assert half["evaluate"] < 12, "it was done before the kill"
        killed = read_sweep(Store.open(str(root)), "s")
        assert killed is not None
        assert killed.state == "killed"

        planted = missing(path, "evaluate fold2")[-1]
        blocked = root / "artifacts" / "evaluate" / planted.key.fingerprint
        blocked.parent.mkdir(exist_ok=True)
        blocked.write_text("a file where a folder belongs")
        jobs.submit("sweep-2", command)
        job = jobs.follow("sweep-2", lambda text: os.write(1, text.encode()) and None)
    assert job.exit_code == 9
    record = read_sweep(Store.open(str(root)), "s")
    assert record is not None
    assert [f"{c.arm} seed {c.seed}" for c in record.failed] == [planted.first]
    assert record.failed[0].stage == "evaluate"
    assert record.count("done") == 11
    assert len(record.reports) == 5
    assert sealed(root) == {
        **{"ingest": 1, "backbone": 2},
        # Of 2 folds and 2 seeds; arms differ in finetune alone.
        **dict.fromkeys(("warmup", "extract", "cluster", "codebook", "label", "retrain"), 4),
        **{"finetune": 12, "evaluate": 11, "report": 5},
    }
    # What was done before the kill was not started again.
    again = capfd.readouterr().out
    starts = Counter(
        line.split(": ")[1].split(" ")[0] for line in again.splitlines() if ": running, " in line
    )
    for kind, total in (("warmup", 4), ("retrain", 4), ("finetune", 12)):
        assert starts[kind] == total - half[kind]
    assert f"{planted.first.replace(' seed', ' fold2 seed')}, evaluate: " in again


def test_cells_run_side_by_side_on_nodes(tiny_corpus: Path, tmp_path: Path) -> None:
    """Room for eight workers on four nodes: cells overlap, and no more than eight run at once."""
    path = write_sweep_files(tmp_path, tiny_corpus, ARMS, seeds=2)
    sweep = load_sweep(path)
    with local_nodes(4, num_cpus=2):
        record = run_sweep(sweep, context_of(tmp_path / "root", tiny_corpus, sweep.config))
    assert record.count("done") == 12
    stages = [
        s
        for r in read_runs(Store.open(str(tmp_path / "root")))
        for s in r.stages
        if s.state == "done"
    ]
    trained = [s for s in stages if s.name in ("warmup", "retrain", "finetune")]
    assert len(trained) == 4 + 4 + 12
    most = max(sum(_overlap(a, b) for b in trained) for a in trained)
    assert 4 <= most <= 8
    alone_s = sum(s.duration_s or 0.0 for s in stages)
    ends = [s.started_s + (s.duration_s or 0.0) for s in stages]
    assert alone_s > 2 * (max(ends) - min(s.started_s for s in stages))


def _overlap(at: StageRun, other: StageRun) -> bool:
    """Whether ``other`` runs at the moment at which ``at`` starts."""
    return other.started_s <= at.started_s < other.started_s + (other.duration_s or 0.0)
