"""The command ``gmp-atl submit``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, TypedDict

import typer

from gmp_atl_dist.cli.again import AGAIN
from gmp_atl_dist.cli.options import ConfigOption, RootOption, SetOption, load_experiment
from gmp_atl_dist.redaction import say_error

_INTERRUPTED = 130


class _Given(TypedDict):
    """What the command line says of a job, of a run and of a sweep alike."""

    overrides: Sequence[str]
    root: str | None
    folder: Path
    env: Sequence[str]
    name: str | None
    doctor: bool


def submit(
    config: ConfigOption,
    address: Annotated[
        str,
        typer.Option(
            envvar="RAY_API_SERVER_ADDRESS", help="URL of the dashboard: http://HOST:8265"
        ),
    ],
    set_: SetOption = None,
    root: RootOption = None,
    working_dir: Annotated[
        Path,
        typer.Option(
            help="folder to upload, without .git, .venv, runs and files that .gitignore excludes"
        ),
    ] = Path("."),
    submission_id: Annotated[
        str | None,
        typer.Option(help="job id; by default derived from configuration, corpus and root"),
    ] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="do not follow the job")] = False,
    env: Annotated[
        list[str] | None,
        typer.Option(
            help="name of an environment variable to pass to the job; no secrets; repeatable"
        ),
    ] = None,
    no_doctor: Annotated[
        bool, typer.Option("--no-doctor", help="do not run gmp-atl doctor before the run")
    ] = False,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="--config is a sweep; one job runs all of its cells")
    ] = False,
) -> int:
    """Run the pipeline as a job of a Ray cluster, or follow the job that runs it already.

    Returns the exit code of the job.
    """
    from gmp_atl_dist.config.sweep import load_sweep
    from gmp_atl_dist.ray_api.jobs import Jobs
    from gmp_atl_dist.submit import exit_code_of, order_of, submit_or_attach, sweep_order_of

    given: _Given = {
        "overrides": set_ or (),
        "root": root,
        "folder": working_dir,
        "env": env or (),
        "name": submission_id,
        "doctor": not no_doctor,
    }
    if sweep:
        order = sweep_order_of(config, load_sweep(config, set_ or (), root), **given)
    else:
        order = order_of(config, load_experiment(config, set_, root), **given)
    again = ["gmp-atl", "submit", "--address", address, "--config", str(config)]
    for option, values in (("--set", set_), ("--env", env)):
        for value in values or ():
            again += [option, value]
    for option, value in (("--root", root), ("--submission-id", submission_id)):
        again += [] if value is None else [option, value]
    again += [] if working_dir == Path(".") else ["--working-dir", str(working_dir)]
    again += ["--no-doctor"] if no_doctor else []
    again += ["--sweep"] if sweep else []

    order = replace(order, env={**order.env, AGAIN: shlex.join(again)})
    jobs = Jobs(address)
    job = submit_or_attach(jobs, order, _say)
    _say(f"follow or resume: {shlex.join(again)}")
    stop = shlex.join(["ray", "job", "stop", "--address", address, job.id])
    _say(f"stop: {stop}")
    if no_wait:
        return 0
    try:
        job = jobs.follow(job.id, _write)
    except KeyboardInterrupt:
        _say(f"\n{job.id} keeps running; the two commands above follow it again and stop it")
        return _INTERRUPTED
    code = exit_code_of(job)
    # Further lines of Ray's message repeat the end of the log, which was printed already.
    message = f": {job.message.partition(chr(10))[0]}" if code else ""
    _say(f"{job.id} {job.status.lower()}{message}")
    return code


def _say(text: str) -> None:
    """Print what is not the job's output to standard error, without secrets."""
    say_error(text)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
