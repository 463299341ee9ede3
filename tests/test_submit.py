"""What ``gmp-atl submit`` submits, by the configuration and the jobs that a cluster remembers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.config.sweep import load_sweep
from gmp_atl_dist.errors import ConfigError, WorkerError
from gmp_atl_dist.ray_api.job_output import JobLines
from gmp_atl_dist.ray_api.jobs import Job, Jobs
from gmp_atl_dist.submit import Order, exit_code_of, name_of, order_of, place, sweep_order_of


def experiment(root: str = "s3://bucket/runs", **keys: object) -> RunConfig:
    return RunConfig.model_validate({**keys, "runtime": {"root": root, "train": {"workers": 2}}})


def order(at: Path, run: RunConfig | None = None, **changed: object) -> Order:
    given: dict[str, object] = {"overrides": (), "root": None, "folder": at, "env": ()}
    given |= changed
    return order_of(at / "run.toml", run or experiment(), **given)  # pyright: ignore[reportArgumentType]


def test_the_same_run_has_the_same_name_whatever_it_runs_on() -> None:
    other_workers = RunConfig.model_validate({"runtime": {"root": "s3://bucket/runs"}})

    assert name_of(experiment()) == name_of(other_workers)
    assert name_of(experiment()) != name_of(experiment("s3://bucket/others"))
    assert name_of(experiment()) != name_of(experiment(warmup={"lr": 1e-3}))


def test_the_job_runs_doctor_first(tmp_path: Path) -> None:
    made = order(tmp_path, overrides=("corpus.table=my table.csv",), root="s3://bucket/x")
    arguments = "--config run.toml --set 'corpus.table=my table.csv' --root s3://bucket/x"

    assert made.command == (
        f"python -m gmp_atl_dist.cli doctor {arguments} "
        f"&& exec python -m gmp_atl_dist.cli run {arguments}"
    )
    assert "doctor" not in order(tmp_path, doctor=False).command


def test_a_sweep_is_one_job(tmp_path: Path) -> None:
    sweep = load_sweep("sweeps/emodb", root="s3://bucket/runs")
    made = sweep_order_of(
        Path("sweeps/emodb"), sweep, overrides=(), root="s3://bucket/runs", folder=tmp_path, env=()
    )
    arguments = "--config sweeps/emodb --root s3://bucket/runs"
    assert made.command == (
        f"python -m gmp_atl_dist.cli doctor {arguments} && "
        f"exec python -m gmp_atl_dist.cli sweep {arguments}"
    )
    # One seed less is another sweep; more workers are not.
    fewer = replace(sweep, runs=sweep.runs[:7])
    wider = load_sweep("sweeps/emodb", ["runtime.train.workers=4"], "s3://bucket/runs")
    names = [
        sweep_order_of(
            Path("sweeps/emodb"), s, overrides=(), root=None, folder=tmp_path, env=()
        ).name
        for s in (sweep, wider, fewer)
    ]
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ({}, ("run", None)),
        ({"run-of-others": "RUNNING"}, ("run", None)),
        ({"run": "RUNNING"}, ("run", "run")),
        ({"run": "PENDING"}, ("run", "run")),
        ({"run": "SUCCEEDED"}, ("run", "run")),
        ({"run": "FAILED"}, ("run-2", None)),
        ({"run": "FAILED", "run-2": "STOPPED", "run-10": "FAILED"}, ("run-11", None)),
        ({"run": "FAILED", "run-2": "RUNNING"}, ("run-2", "run-2")),
    ],
)
def test_a_second_submit(jobs: dict[str, str], expected: tuple[str, str | None]) -> None:
    name, there = place("run", [Job(name, status) for name, status in jobs.items()])

    assert (name, there and there.id) == expected


def test_orders_that_cannot_work_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(ConfigError, match="be deleted with it"):
        order(tmp_path, experiment("runs"))
    with pytest.raises(ConfigError, match="--working-dir"):
        order(tmp_path, folder=tmp_path / "below")
    with pytest.raises(ConfigError, match="is not set here"):
        order(tmp_path, env=["NOT_SET"])


def test_secrets_are_not_passed_to_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")

    assert order(tmp_path, env=["AWS_REGION"]).env == {"AWS_REGION": "eu-central-1"}
    with pytest.raises(ConfigError, match="names a secret") as caught:
        order(tmp_path, env=["AWS_SECRET_ACCESS_KEY"])
    assert "hush-hush" not in caught.value.message
    with pytest.raises(ConfigError, match="give the name alone") as caught:
        order(tmp_path, env=["HF_TOKEN=hush-hush"])
    assert "hush-hush" not in caught.value.message


@pytest.mark.parametrize(
    ("job", "code"),
    [
        (Job("a", "SUCCEEDED", exit_code=0), 0),
        (Job("a", "FAILED", exit_code=8), 8),
        (Job("a", "FAILED", exit_code=-9), 137),
        (Job("a", "FAILED"), 1),
        (Job("a", "STOPPED"), 143),
    ],
)
def test_the_exit_code_is_the_jobs(job: Job, code: int) -> None:
    assert exit_code_of(job) == code


def test_wrong_addresses() -> None:
    with pytest.raises(ConfigError, match="http://HOST:8265"):
        Jobs("head:6379")
    with pytest.raises(WorkerError, match="does not answer"):
        Jobs("http://127.0.0.1:1")


RAYS_LINES = (
    "2026-11-26 01:54:44,918\tINFO job_manager.py:581 -- Runtime env is setting up.\n"
    "Running entrypoint for job gmp-atl-1: python -m gmp_atl_dist.cli run\n"
)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_lines_that_ray_puts_before_a_jobs_own_are_left_out(size: int) -> None:
    text = RAYS_LINES + "ingest: running\nRunning entrypoint for job of ours\n\nno end"
    written: list[str] = []
    lines = JobLines(written.append)
    for start in range(0, len(text), size):
        lines.add(text[start : start + size])
    lines.end()

    assert "".join(written) == text.removeprefix(RAYS_LINES)


def test_a_job_without_lines_of_ray_loses_nothing() -> None:
    written: list[str] = []
    lines = JobLines(written.append)
    lines.add("error: no corpus\n")
    lines.end()

    assert written == ["error: no corpus\n"]
