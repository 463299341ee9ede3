"""A run as a job of a Ray cluster: its id, its command, and whether the cluster has it already."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gmp_atl_dist import __version__
from gmp_atl_dist.config import RunConfig, digest
from gmp_atl_dist.config.sweep import Sweep
from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.ray_api.jobs import Job, JobExistsError, Jobs
from gmp_atl_dist.redaction import names_a_secret
from gmp_atl_dist.shipped import shipped_path, shipped_sweep_path

EXCLUDES = (".git", ".venv", "/runs", "__pycache__")
_STOPPED = 143


@dataclass(frozen=True)
class Order:
    """What is submitted: ``gmp-atl run ARGUMENTS``, or another command, in a copy of ``folder``."""

    name: str
    arguments: tuple[str, ...]
    folder: Path
    root: str
    env: dict[str, str]
    doctor: bool = True
    verb: str = "run"
    """The command: ``run`` or ``sweep``."""

    @property
    def command(self) -> str:
        """For the cluster's shell. As modules, so that a checkout need not be installed there."""
        run, doctor = (
            shlex.join(["python", "-m", "gmp_atl_dist.cli", command, *self.arguments])
            for command in (self.verb, "doctor")
        )
        # exec: what stops the job stops the run itself, which then saves a checkpoint.
        return f"{doctor} && exec {run}" if self.doctor else f"exec {run}"


def order_of(
    config: Path,
    experiment: RunConfig,
    *,
    overrides: Sequence[str],
    root: str | None,
    folder: Path,
    env: Sequence[str],
    name: str | None = None,
    doctor: bool = True,
) -> Order:
    """The order for a run. It is refused if it could not work on another machine.

    Raises:
        ConfigError: the file lies outside the folder, a file there would be read instead of the
            shipped configuration, the root would be lost with the job, or a variable is not set or
            names a secret.
    """
    settings = experiment.runtime
    folder = folder.resolve()
    arguments = ["--config", _config_of_job(config, folder)]
    if "://" not in settings.root and not os.path.isabs(settings.root):
        raise ConfigError(
            f"runtime.root: {settings.root!r} is a relative folder. On the cluster it would lie in "
            f"the job's copy of the working directory and be deleted with it; give --root "
            f"s3://BUCKET/PREFIX, or a folder that all nodes share"
        )
    for override in overrides:
        arguments += ["--set", override]
    if root is not None:
        arguments += ["--root", root]
    return Order(
        name=name or name_of(experiment),
        arguments=tuple(arguments),
        folder=folder,
        root=settings.root,
        env=_values(env),
        doctor=doctor,
    )


def sweep_order_of(
    config: Path,
    sweep: Sweep,
    *,
    overrides: Sequence[str],
    root: str | None,
    folder: Path,
    env: Sequence[str],
    name: str | None = None,
    doctor: bool = True,
) -> Order:
    """The order for a whole sweep: one job for all cells. Refused as by :func:`order_of`."""
    order = order_of(
        config,
        sweep.config,
        overrides=overrides,
        root=root,
        folder=folder,
        env=env,
        name=name or f"gmp-atl-sweep-{_digest_of_place(sweep.config, sweep.fingerprint)}",
        doctor=doctor,
    )
    return replace(order, verb="sweep")


def _digest_of_place(experiment: RunConfig, science: str) -> str:
    settings = experiment.runtime
    corpus = [settings.corpus, dict(settings.corpora)]
    return digest([science, corpus, settings.root])[:12]


def _config_of_job(config: Path, folder: Path) -> str:
    """What the job's ``--config`` is: a shipped name, or the path below the working directory."""
    if (shipped_path(config) or shipped_sweep_path(config)) is not None:
        if (folder / config).is_file():
            raise ConfigError(
                f"--config {config}: names a shipped configuration here, but a file in --working-dir "
                f"{folder}, which the job would read instead; give the path of one of the two"
            )
        return str(config)
    if not config.resolve().is_relative_to(folder):
        raise ConfigError(
            f"--config {config}: lies outside --working-dir {folder}, so the job would not have it; "
            f"name a working directory that holds it"
        )
    return str(config.resolve().relative_to(folder))


def name_of(experiment: RunConfig) -> str:
    """The job id of a run. It follows from the science, the corpus and the root alone."""
    settings = experiment.runtime
    run = {"science": experiment.science(), "corpus": settings.corpus, "root": settings.root}
    if settings.corpora:
        run["corpus"] = dict(settings.corpora)
    return f"gmp-atl-{digest(run)[:12]}"


def place(name: str, jobs: Iterable[Job]) -> tuple[str, Job | None]:
    """The id for a run, and the job to follow if the cluster has one for this run.

    Ray never accepts an id twice. After a job that failed or was stopped, the next id is ``NAME-2``,
    ``NAME-3``, and so on. A job that is pending, running or successful is the one to follow.
    """
    pattern = re.compile(rf"{re.escape(name)}(?:-(\d+))?")
    numbered = {
        int(match[1] or 1): job for job in jobs if (match := pattern.fullmatch(job.id)) is not None
    }
    if not numbered:
        return name, None
    newest = max(numbered)
    job = numbered[newest]
    if job.status in ("FAILED", "STOPPED"):
        return f"{name}-{newest + 1}", None
    return job.id, job


def submit_or_attach(jobs: Jobs, order: Order, say: Callable[[str], object]) -> Job:
    """Submit the order, unless the cluster has a job for the same run.

    Raises:
        ConfigError: the folder is larger than Ray accepts.
        WorkerError: the cluster does not answer, or refuses the request.
    """
    while True:
        job, there = place(order.name, jobs.all())
        if there is not None:
            state = {"SUCCEEDED": "has succeeded"}.get(there.status, f"is {there.status.lower()}")
            say(f"{job} {state} already; no new job is started, its output follows")
            return there
        try:
            jobs.submit(
                job,
                order.command,
                folder=order.folder,
                excludes=EXCLUDES,
                env=order.env,
                metadata={"gmp_atl_dist": __version__, "root": order.root},
            )
        except JobExistsError:
            continue  # the same run was submitted at the same time: look again
        say(f"{job} submitted from {order.folder}")
        return Job(job, "PENDING")


def exit_code_of(job: Job) -> int:
    """The exit code of a job as a shell would give it. A job that Ray ended without a code has failed."""
    if job.exit_code is not None:
        return job.exit_code if job.exit_code >= 0 else 128 - job.exit_code
    return {"SUCCEEDED": 0, "STOPPED": _STOPPED}.get(job.status, 1)


def _values(names: Sequence[str]) -> dict[str, str]:
    problems: list[str] = []
    for name in names:
        if "=" in name:
            problems.append(f"--env {name.partition('=')[0]}=...: give the name alone")
        elif names_a_secret(name):
            problems.append(
                f"--env {name}: names a secret, and everybody who can see Ray's jobs can read their "
                f"environment; give it to the cluster's pods, preferably as a cloud identity"
            )
        elif name not in os.environ:
            problems.append(f"--env {name}: is not set here; export it, or leave it out")
    if problems:
        raise ConfigError.of_all("the job's environment is not usable:", problems)
    return {name: os.environ[name] for name in names}
