"""A cluster's job API: submit a job, find it, follow its output. Ray's own client does the requests.

Unless a token is given, Ray's client takes it from the environment (``RAY_AUTH_TOKEN``).
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gmp_atl_dist.errors import ConfigError, WorkerError
from gmp_atl_dist.ray_api.job_output import Cut, JobLines, next_of

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

_REACHED_S = 10.0
_LOST_S = 120.0
_AGAIN_S = 2.0
_SUBMITS = 3
_ADDRESS = "RAY_API_SERVER_ADDRESS"
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True)
class Job:
    """A submitted job. ``exit_code`` is set once its command has ended by itself."""

    id: str
    status: str
    message: str = ""
    exit_code: int | None = None

    @property
    def ended(self) -> bool:
        return self.status in _ENDED


class JobExistsError(WorkerError):
    """The cluster has a job of that id already."""


class Jobs:
    """The job API at the URL of a dashboard, ``http://HOST:8265``."""

    def __init__(self, address: str, token: str | None = None) -> None:
        """Connect to the dashboard at ``address``.

        Raises:
            ConfigError: ``address`` is not the URL of a dashboard.
            WorkerError: the address does not answer, or the token is missing or refused.
        """
        if not address.startswith(("http://", "https://")):
            raise ConfigError(
                f"--address {address}: is not the URL of a dashboard; give http://HOST:8265, not the "
                f"address that workers connect to"
            )
        self.address = address.rstrip("/")
        _reach(self.address)
        with self._explained(), _pointed_to(self.address):
            from gmp_atl_dist.ray_api.job_client import LimitedJobClient

            _end_without_colour_code()
            # At level INFO it logs each file that it leaves out and each connection that ends.
            for handler in logging.getLogger("ray").handlers:
                handler.setLevel(logging.ERROR)
            headers = None if token is None else {"Authorization": f"Bearer {token}"}
            self._client = LimitedJobClient(self.address, headers=headers)

    def all(self) -> list[Job]:
        """Every submitted job that the cluster remembers, ended ones included.

        Raises:
            WorkerError: the cluster does not answer, or refuses the request.
        """
        with self._explained():
            return [_job(details) for details in self._client.list_jobs() if details.submission_id]

    def get(self, job: str) -> Job:
        """The present state of a job.

        Raises:
            WorkerError: there is no such job, or the cluster does not answer.
        """
        with self._explained():
            return _job(self._client.get_job_info(job))

    def submit(
        self,
        job: str,
        command: str,
        *,
        folder: Path | None = None,
        excludes: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Upload ``folder`` and run ``command`` in it by a shell.

        Without ``folder``, the command runs in the working directory of the head.

        Raises:
            JobExistsError: the id is taken.
            ConfigError: the folder does not exist, or is larger than Ray accepts.
            WorkerError: the cluster does not answer, or refuses the request.
        """
        runtime_env: dict[str, object] = {}
        if folder is not None:
            runtime_env |= {"working_dir": str(folder), "excludes": list(excludes)}
        if env:
            runtime_env["env_vars"] = dict(env)

        def send() -> None:
            self._client.submit_job(
                entrypoint=command,
                submission_id=job,
                runtime_env=runtime_env,
                metadata=dict(metadata or {}),
            )

        try:
            with self._explained():
                self._sent(job, send)
        except ValueError as e:
            raise ConfigError(
                f"--working-dir {folder}: {e}; name a smaller folder, or list what is not needed in "
                f"its .gitignore"
            ) from e
        except WorkerError as e:
            if "already exists" in e.message:
                raise JobExistsError(e.message) from e
            raise

    def _sent(self, job: str, send: Callable[[], object]) -> None:
        """Send the request again if its connection was cut and the job is not there.

        The dashboard of a busy head sometimes closes a connection without an answer.
        """
        from requests.exceptions import ConnectionError as CutError

        for _ in range(_SUBMITS - 1):
            try:
                send()
                return
            except CutError:
                time.sleep(_AGAIN_S)
                with suppress(RuntimeError, OSError):  # "no such job", or no answer again
                    self._client.get_job_info(job)
                    return
        send()

    def stop(self, job: str) -> None:
        """Ask Ray to end the job: SIGTERM, and SIGKILL after the head's ``RAY_JOB_STOP_WAIT_TIME_S``.

        Raises:
            WorkerError: there is no such job, or the cluster does not answer.
        """
        with self._explained():
            self._client.stop_job(job)

    def follow(
        self,
        job: str,
        write: Callable[[str], object],
        on_silence: Callable[[], object] = lambda: None,
    ) -> Job:
        """Pass the job's output to ``write`` as it comes, from its start; return the job at its end.

        A broken connection is opened again. Lines that Ray puts before the job's own are left out.
        ``on_silence`` is called each time the cluster does not answer; it may raise to stop following.

        Raises:
            WorkerError: the cluster has not answered for two minutes; the job may still be running.
        """
        lines = JobLines(write)
        read = 0
        answered_s = time.monotonic()
        while True:
            try:
                read = asyncio.run(self._tail(job, read, lines.add))
                state = self.get(job)
                if state.ended:
                    lines.end()
                    return state
                answered_s = time.monotonic()
            except Cut as e:
                read = e.read
                # The connection worked until now, so the time without an answer starts again.
                answered_s = time.monotonic() if e.progressed else answered_s
                on_silence()
                if time.monotonic() - answered_s > _LOST_S:
                    raise WorkerError(
                        f"{self.address} does not answer any more ({e.__cause__}); the job may still "
                        f"be running: submit it again to follow it"
                    ) from e
            except WorkerError:
                on_silence()
                if time.monotonic() - answered_s > _LOST_S:
                    raise
            time.sleep(_AGAIN_S)

    async def _tail(self, job: str, read: int, write: Callable[[str], object]) -> int:
        """Pass on what comes after ``read`` characters; return how many there were in the end.

        Ray sends the whole output each time.
        """
        import aiohttp

        sent, before = 0, read
        try:
            output = self._client.tail_job_logs(job)
            while (text := await next_of(output, partial(_reach, self.address))) is not None:
                fresh = text[max(0, read - sent) :]
                sent += len(text)
                if fresh:
                    write(fresh)
                    read = sent
        except (RuntimeError, OSError, aiohttp.ClientError) as e:
            raise Cut(read, read > before) from e
        return read

    @contextmanager
    def _explained(self) -> Iterator[None]:
        from ray.exceptions import AuthenticationError
        from requests.exceptions import RequestException

        try:
            yield
        except AuthenticationError as e:
            raise WorkerError(_refusal(self.address)) from e
        except (RuntimeError, OSError, RequestException) as e:
            raise WorkerError(
                f"{self.address}: {e}; check --address, and that the head is running"
            ) from e


def _reach(address: str) -> None:
    """Check that the address answers: Ray's client has no time limit of its own."""
    try:
        urllib.request.urlopen(f"{address}/api/version", timeout=_REACHED_S).close()
    except urllib.error.HTTPError:
        return  # an answer, even if it only asks for a token
    except (OSError, ValueError) as e:
        raise WorkerError(
            f"{address} does not answer ({getattr(e, 'reason', e)}); check --address (the "
            f"dashboard's, usually port 8265), port forwarding, and that the head is running"
        ) from e


@contextmanager
def _pointed_to(address: str) -> Iterator[None]:
    """In Ray's client the environment takes precedence over the address that it is given."""
    before = os.environ.get(_ADDRESS)
    os.environ[_ADDRESS] = address
    try:
        yield
    finally:
        del os.environ[_ADDRESS]
        if before is not None:
            os.environ[_ADDRESS] = before


def _end_without_colour_code() -> None:
    """Ray's copy of colorama would print a colour code to the terminal when the process ends."""
    colorama = sys.modules.get("colorama.initialise")
    if colorama is not None:
        atexit.unregister(colorama.reset_all)


def _refusal(address: str) -> str:
    mode = os.environ.get("RAY_AUTH_MODE", "")
    if mode.lower() != "token":
        why = f" because RAY_AUTH_MODE is {mode!r} here" if mode else ""
        return (
            f"{address} requires a token, and no token was sent{why}; set RAY_AUTH_MODE=token and the "
            f"cluster's RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH"
        )
    return (
        f"{address} refused our token, or no token was found; set RAY_AUTH_TOKEN or "
        f"RAY_AUTH_TOKEN_PATH to the token of this cluster"
    )


def _job(details: JobDetails) -> Job:
    return Job(
        details.submission_id or "",
        details.status.value,
        details.message or "",
        details.driver_exit_code,
    )
