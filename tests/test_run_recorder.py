"""The record of a run: what it holds, and that it disturbs nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from support.one_process import Tiny, context_of, no_ray, tiny_experiment

from gmp_atl_dist import execution
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.corpora.names import corpus_name
from gmp_atl_dist.errors import ArtifactError, StoppedError, WorkerError
from gmp_atl_dist.runs.facts import git_commit
from gmp_atl_dist.runs.names import named
from gmp_atl_dist.runs.recorder import RunRecorder
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.layout import claim_layout
from gmp_atl_dist.store.run_state import attempt_state, duration_s, run_state, stage_state
from gmp_atl_dist.store.runs import Attempt, Machine, RunRecord, StageRun, read_run, run_names

pytest_plugins = ["support.one_process"]


def experiment_of(tiny: Tiny, root: Path, /, **sections: dict[str, object]) -> RunConfig:
    return named(tiny_experiment(tiny.folder, root, **sections), "configs/my experiment.toml")


def record_of(store: Store, name: str) -> RunRecord:
    record = read_run(store, name)
    assert record is not None
    return record


def test_a_whole_run_is_recorded(tiny: Tiny, tmp_path: Path) -> None:
    config = experiment_of(tiny, tmp_path / "root")
    context = context_of(tmp_path / "root", tiny.folder, config)
    before_s = time.time()
    with no_ray(), RunRecorder(config, context, "configs/my experiment.toml") as recorder:
        report = execution.run_pipeline(config, context, [recorder])
    name = config.runtime.run_name
    record = record_of(context.store, name)
    science = record.fingerprint
    assert name == f"my-experiment-{science[:8]}"
    assert (record.config_name, record.corpus_name) == ("my-experiment", "IEMOCAP")
    (attempt,) = record.attempts
    assert (attempt.state, attempt.message, attempt.pid) == ("done", "", os.getpid())
    assert before_s <= attempt.started_s <= attempt.seen_s <= time.time()
    assert attempt.ended_s == attempt.seen_s
    assert attempt.machine.cpus == len(os.sched_getaffinity(0))
    assert attempt.machine.memory_bytes > 1 << 28
    assert {"torch", "ray", "gmp_atl_dist", "python"} <= attempt.versions.keys()
    assert [s.name for s in record.stages] == [
        *("ingest", "backbone", "warmup", "extract", "cluster", "label"),
        *("retrain", "finetune", "evaluate", "report"),
    ]
    for stage in record.stages:
        assert (stage.state, stage_state(record, stage)) == ("done", "done")
        assert stage.duration_s is not None
        assert stage.peak_memory_bytes is not None
        assert stage.peak_memory_bytes > 1 << 26
    by_name = {stage.name: stage for stage in record.stages}
    corpus_s = sum(r.audio_s for r in tiny.corpus.manifest.receipts)
    assert by_name["ingest"].audio_s == pytest.approx(corpus_s)
    assert by_name["extract"].audio_s < corpus_s, "two layers are read once"
    assert by_name["retrain"].updates == 2
    assert by_name["finetune"].updates > 2
    assert by_name["finetune"].audio_s == pytest.approx(2 * by_name["extract"].audio_s, rel=0.1)
    assert by_name["finetune"].fold == "fold1"
    content = json.loads(report.read_file("report.json"))
    assert record.report == report.key.fingerprint
    assert record.scores["uar"].value == content["pooled"]["outcome"]["scores"]["uar"]
    assert record.scores["uar"].low <= record.scores["uar"].value <= record.scores["uar"].high
    assert record.chance == 0.25
    assert (run_state(record), duration_s(record) > 0) == ("done", True)
    page = context.store.read(f"runs/{name}/report.html")
    assert page.startswith(b"<!DOCTYPE html>")

    # The same again finds everything. What was measured stays, and the page is not rendered again.
    context.store.put(f"runs/{name}/report.html", b"mine")
    with no_ray(), RunRecorder(config, context, "my experiment.toml") as recorder:
        execution.run_pipeline(config, context, [recorder])
    again = record_of(context.store, name)
    assert len(again.attempts) == 2
    assert again.stages == record.stages
    assert again.scores == record.scores
    assert context.store.read(f"runs/{name}/report.html") == b"mine"


@pytest.mark.parametrize(
    ("config_of_job", "job"),
    [
        (
            json.dumps({"runtime_env": {}, "metadata": {"job_submission_id": "gmp-atl-x7"}}),
            "gmp-atl-x7",
        ),
        (json.dumps({"metadata": None}), ""),
        ("[]", ""),
        ("no json", ""),
        (None, ""),
    ],
)
def test_an_attempt_names_its_job_and_its_cluster(
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    config_of_job: str | None,
    job: str,
) -> None:
    """By these the run of a RayJob is found. Ray and KubeRay set the variables."""
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    if config_of_job is not None:
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", config_of_job)
    monkeypatch.setenv("RAY_CLUSTER_NAME", "gmp-atl-raycluster-abcde")
    config = experiment_of(tiny, tmp_path / "root")
    context = context_of(tmp_path / "root", tiny.folder, config)
    claim_layout(context.store)
    with RunRecorder(config, context, "my experiment.toml"):
        pass
    (attempt,) = record_of(context.store, config.runtime.run_name).attempts
    assert (attempt.job, attempt.cluster) == (job, "gmp-atl-raycluster-abcde")


def test_an_error_and_a_stop_end_the_attempt_and_its_stage(tiny: Tiny, tmp_path: Path) -> None:
    config = experiment_of(tiny, tmp_path / "root")
    context = context_of(tmp_path / "root", tiny.folder, config)
    with no_ray():
        for name in ("ingest", "backbone"):
            with RunRecorder(config, context, "my experiment.toml") as recorder:
                execution.run_stage(config, context, name, [recorder])
    record = record_of(context.store, config.runtime.run_name)
    assert run_state(record) == "incomplete", "stages alone are no run"

    spent_s = 0.0
    for error, state in (
        (WorkerError("no worker at s3://me:pass@host/x"), "failed"),
        (StoppedError("stopped on request"), "stopped"),
        (KeyboardInterrupt(), "stopped"),
    ):

        def train(*_: object, error: BaseException = error, **__: object) -> None:
            raise error

        with no_ray(), pytest.MonkeyPatch.context() as patch:
            patch.setattr("gmp_atl_dist.runtime.train", train)
            with (
                pytest.raises(type(error)),
                RunRecorder(config, context, "my experiment.toml") as recorder,
            ):
                execution.run_pipeline(config, context, [recorder])
        record = record_of(context.store, config.runtime.run_name)
        assert (record.attempts[-1].state, run_state(record)) == (state, state)
        warmup = record.stage("warmup fold1")
        assert warmup is not None
        assert (warmup.state, warmup.attempt) == (state, len(record.attempts) - 1)
        assert warmup.duration_s is not None
        assert warmup.total_s is not None
        assert warmup.total_s == pytest.approx(spent_s + warmup.duration_s)
        spent_s = warmup.total_s
    assert "pass@" not in record.model_dump_json()
    assert "no worker at s3://host/x" in record.attempts[2].message


class Refuses(Store):
    """A store that takes everything but records."""

    def put(self, path: str, data: bytes | memoryview) -> None:
        if path.startswith("runs/"):
            raise ArtifactError("records are refused")
        super().put(path, data)


def test_a_store_that_refuses_the_record_fails_no_run(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = experiment_of(tiny, tmp_path / "root")
    context = context_of(tmp_path / "root", tiny.folder, config)
    context = replace(context, store=Refuses(str(tmp_path / "root")))
    with no_ray(), RunRecorder(config, context, "x.toml", every_s=0.01, sample_every_s=0.01) as r:
        execution.run_stage(config, context, "ingest", [r])
        execution.run_stage(config, context, "backbone", [r])
        time.sleep(0.1)  # some more attempts to write
    said = capsys.readouterr().out
    assert said.count("warning: the record of this run") == 1, said
    assert "records are refused" in said


def test_a_root_that_the_run_refuses_is_left_alone(tiny: Tiny, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "artifacts").mkdir(parents=True)  # as release 0.1 leaves it
    (root / "artifacts" / "x").write_text("x")
    config = experiment_of(tiny, root)
    context = context_of(root, tiny.folder, config)
    with (
        pytest.raises(ArtifactError, match="has layout 0"),
        RunRecorder(config, context, "x.toml", sample_every_s=0.01) as recorder,
    ):
        execution.run_pipeline(config, context, [recorder])
    assert [p.name for p in root.iterdir()] == ["artifacts"]


def seen(store: Store, name: str) -> float:
    record = read_run(store, name)
    return 0.0 if record is None else record.attempts[-1].seen_s


def test_the_driver_says_that_it_lives(tiny: Tiny, tmp_path: Path) -> None:
    config = experiment_of(tiny, tmp_path)
    context = context_of(tmp_path, tiny.folder, config)
    claim_layout(context.store)
    name = config.runtime.run_name
    with RunRecorder(config, context, "x.toml", every_s=0.05, sample_every_s=0.01):
        deadline = time.monotonic() + 60
        while not seen(context.store, name) and time.monotonic() < deadline:
            time.sleep(0.01)
        first = seen(context.store, name)
        while seen(context.store, name) == first and time.monotonic() < deadline:
            time.sleep(0.01)
        assert seen(context.store, name) > first > 0
        assert run_state(record_of(context.store, name)) == "running"


def test_two_drivers_of_one_run_keep_each_others_stages(tiny: Tiny, tmp_path: Path) -> None:
    config = experiment_of(tiny, tmp_path)
    contexts = [context_of(tmp_path, tiny.folder, config) for _ in range(2)]
    with (
        no_ray(),
        RunRecorder(config, contexts[0], "x.toml") as one,
        RunRecorder(config, contexts[1], "x.toml") as other,
    ):
        execution.run_stage(config, contexts[0], "ingest", [one])
        execution.run_stage(config, contexts[1], "backbone", [other])
    record = record_of(contexts[0].store, config.runtime.run_name)
    assert [a.state for a in record.attempts] == ["done", "done"]
    assert {s.name: s.state for s in record.stages} == {"ingest": "done", "backbone": "done"}
    found = {s.name: record.attempts[s.attempt].started_s for s in record.stages}
    assert found["ingest"] < found["backbone"]


def test_names_are_stable_and_one_for_each_configuration(tiny: Tiny, tmp_path: Path) -> None:
    claim_layout(Store.open(str(tmp_path)))

    def ran(**sections: dict[str, object]) -> str:
        config = named(tiny_experiment(tiny.folder, tmp_path, **sections), "a/b c.toml")
        context = context_of(tmp_path, tiny.folder, config)
        with RunRecorder(config, context, "a/b c.toml"):
            pass
        return config.runtime.run_name

    first = ran()
    assert first == ran()
    assert first.startswith("b-c-")
    assert ran(runtime={"run_name": "mine"}) == "mine"
    other = ran(runtime={"run_name": "mine"}, warmup={"lr": 0.5})
    assert other.startswith("mine-")
    assert other == ran(runtime={"run_name": "mine"}, warmup={"lr": 0.5})
    moved = ran(runtime={"corpus": str(tmp_path / "moved")})
    assert moved.startswith(f"{first}-")
    assert ran(runtime={"run_name": "not/a name"}) == first
    assert set(run_names(Store.open(str(tmp_path)))) == {first, "mine", other, moved}


@pytest.mark.parametrize(
    ("settings", "adapter", "expected"),
    [
        ({"corpus": "s3://bucket/EmoDB/"}, "table", "EmoDB"),
        ({"corpus": "x", "corpus_name": "my\ncorpus"}, "table", "my corpus"),
        ({"corpus": "/data/x"}, "iemocap", "IEMOCAP"),
    ],
)
def test_a_corpus_has_a_name(settings: dict[str, str], adapter: str, expected: str) -> None:
    raw = {"corpus": {"adapter": adapter, "table": "t.csv"}, "runtime": settings}
    assert corpus_name(RunConfig.model_validate(raw)) == expected


def test_a_killed_run_is_told_from_one_that_lives() -> None:
    now_s = 1000.0
    elsewhere = Machine(host="elsewhere")
    attempt = Attempt(started_s=0, seen_s=990, pid=1, machine=elsewhere)
    assert attempt_state(attempt, now_s) == "running"
    lost = attempt.model_copy(update={"seen_s": 800.0})
    assert attempt_state(lost, now_s) == "killed"
    child = subprocess.Popen(["sleep", "60"])
    here = Machine(host=os.uname().nodename)
    mine = Attempt(started_s=time.time(), seen_s=time.time(), pid=child.pid, machine=here)
    assert attempt_state(mine) == "running"
    reused = mine.model_copy(update={"started_s": time.time() - 3600})
    assert attempt_state(reused) == "killed", "the number is another process's by now"
    child.kill()
    child.wait()
    assert attempt_state(mine) == "killed", "at once, not after a minute"

    stage = StageRun(
        label="warmup fold1",
        name="warmup",
        kind="warmup",
        fingerprint="a",
        state="running",
        attempt=0,
        started_s=1,
    )
    record = RunRecord(
        name="x",
        config_name="x",
        fingerprint="x",
        corpus_name="x",
        configuration={},
        attempts=(lost, attempt),
        stages=(stage,),
    )
    assert run_state(record, now_s) == "running"
    assert stage_state(record, stage, now_s) == "killed", "the new attempt has not reached it"
    assert duration_s(record, now_s) == 800 + 1000


def test_the_commit_of_a_folder(tmp_path: Path) -> None:
    assert git_commit(tmp_path) == ""

    def git(*words: str) -> None:
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "x")
    commit = git_commit(tmp_path)
    assert len(commit) == 40
    (tmp_path / "file").write_text("2")
    assert git_commit(tmp_path) == f"{commit}+"


def test_memory_that_forks_share_counts_once() -> None:
    code = (
        "import os, signal; from gmp_atl_dist.runs.facts import FamilyMemory\n"
        "held = os.urandom(1 << 20) * 128; memory = FamilyMemory(); alone = memory()\n"
        "children = [os.fork() for _ in range(1)]\n"
        "signal.pause() if children == [0] else None\n"
        "both = memory(); os.kill(children[0], signal.SIGKILL); os.wait()\n"
        "print(alone, both)"
    )
    alone, both = map(int, subprocess.check_output([sys.executable, "-c", code]).split())

    assert alone > 128 << 20
    assert both < alone + (64 << 20)
