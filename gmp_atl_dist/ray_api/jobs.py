"""A cluster's job API: submit, find, follow. The client is Ray's own, and so is how it finds its token."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gmp_atl_dist.errors import ConfigError, WorkerError

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

_REACHED_S = 10.0
_LOST_S = 120.0
_AGAIN_S = 2.0
_ADDRESS = "RAY_API_SERVER_ADDRESS"
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True)
class Job:
    """A submitted job. ``exit_code`` is there once its command has ended by itself."""

    id: str
    status: str
    message: str = ""
    exit_code: int | None = None

    @property
    def ended(self) -> bool:
        return self.status in _ENDED


class JobExistsError(WorkerError):
    """Somebody has submitted a job of that id in between."""


class Jobs:
    """The job API at an ``http://HOST:8265``."""

    def __init__(self, address: str) -> None:
        """Connect.

        Raises:
            ConfigError: ``address`` is none of a dashboard.
            WorkerError: nobody answers there, or the token is missing or refused.
        """
        if not address.startswith(("http://", "https://")):
            raise ConfigError(
                f"--address {address}: is no URL of a dashboard; give http://HOST:8265, not the "
                f"address that workers connect to"
            )
        self.address = address.rstrip("/")
        _reach(self.address)
        with self._explained(), _pointed_to(self.address):
            from ray.job_submission import JobSubmissionClient

            # It tells of each file that it leaves out and of each connection that ends.
            for handler in logging.getLogger("ray").handlers:
                handler.setLevel(logging.ERROR)
            self._client = JobSubmissionClient(self.address)

    def all(self) -> list[Job]:
        """Every submitted job that the cluster remembers, also those that have ended.

        Raises:
            WorkerError: the cluster does not answer, or refuses us.
        """
        with self._explained():
            return [_job(details) for details in self._client.list_jobs() if details.submission_id]

    def get(self, job: str) -> Job:
        """One job as it stands now.

        Raises:
            WorkerError: there is none, or the cluster does not answer.
        """
        with self._explained():
            return _job(self._client.get_job_info(job))

    def submit(
        self,
        job: str,
        command: str,
        *,
        folder: Path,
        excludes: Sequence[str],
        env: Mapping[str, str],
        metadata: Mapping[str, str],
    ) -> None:
        """Upload ``folder`` and have ``command`` run in it, by a shell.

        Raises:
            JobExistsError: the id is taken.
            ConfigError: the folder is not there, or larger than Ray takes.
            WorkerError: the cluster does not answer, or refuses us.
        """
        runtime_env: dict[str, object] = {"working_dir": str(folder), "excludes": list(excludes)}
        if env:
            runtime_env["env_vars"] = dict(env)
        try:
            with self._explained():
                self._client.submit_job(
                    entrypoint=command,
                    submission_id=job,
                    runtime_env=runtime_env,
                    metadata=dict(metadata),
                )
        except ValueError as e:
            raise ConfigError(
                f"--working-dir {folder}: {e}; name a smaller folder, or list what is not needed in "
                f"its .gitignore"
            ) from e
        except WorkerError as e:
            if "already exists" in e.message:
                raise JobExistsError(e.message) from e
            raise

    def follow(self, job: str, write: Callable[[str], object]) -> Job:
        """Hand what the job prints to ``write`` as it comes, from the start; the job at its end.

        A connection that breaks is made again.

        Raises:
            WorkerError: the cluster has not answered for two minutes; the job may go on.
        """
        shown = 0
        answered_s = time.monotonic()
        while True:
            try:
                shown = asyncio.run(self._tail(job, shown, write))
                found = self.get(job)
                if found.ended:
                    return found
                answered_s = time.monotonic()
            except _Cut as e:
                shown = e.shown
                # It ran until now, so the time without an answer begins anew.
                answered_s = time.monotonic() if e.progressed else answered_s
                if time.monotonic() - answered_s > _LOST_S:
                    raise WorkerError(
                        f"{self.address} does not answer any more ({e.__cause__}); the job may go "
                        f"on: submit it again to follow it"
                    ) from e
            except WorkerError:
                if time.monotonic() - answered_s > _LOST_S:
                    raise
            time.sleep(_AGAIN_S)

    async def _tail(self, job: str, shown: int, write: Callable[[str], object]) -> int:
        """Ray tells all of the log each time; how many characters of it were shown, in the end."""
        import aiohttp

        told, before = 0, shown
        try:
            async for text in self._client.tail_job_logs(job):
                fresh = text[max(0, shown - told) :]
                told += len(text)
                if fresh:
                    write(fresh)
                    shown = told
        except (RuntimeError, OSError, aiohttp.ClientError) as e:
            raise _Cut(shown, shown > before) from e
        return shown

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
                f"{self.address}: {e}; check --address, and that the head is up"
            ) from e


class _Cut(Exception):
    """The connection broke after so many characters."""

    def __init__(self, shown: int, progressed: bool) -> None:
        super().__init__()
        self.shown = shown
        self.progressed = progressed


def _reach(address: str) -> None:
    """Ray's client would wait without an end where nothing comes back."""
    try:
        urllib.request.urlopen(f"{address}/api/version", timeout=_REACHED_S).close()
    except urllib.error.HTTPError:
        return  # an answer, if only that it wants a token
    except (OSError, ValueError) as e:
        raise WorkerError(
            f"{address} does not answer ({getattr(e, 'reason', e)}); check --address (the "
            f"dashboard's, mostly port 8265), port forwarding and that the head is up"
        ) from e


@contextmanager
def _pointed_to(address: str) -> Iterator[None]:
    """Ray lets its environment win over the address that it is given."""
    before = os.environ.get(_ADDRESS)
    os.environ[_ADDRESS] = address
    try:
        yield
    finally:
        del os.environ[_ADDRESS]
        if before is not None:
            os.environ[_ADDRESS] = before


def _refusal(address: str) -> str:
    mode = os.environ.get("RAY_AUTH_MODE", "")
    if mode.lower() != "token":
        found = (
            f"RAY_AUTH_MODE is {mode!r} here, so no token was sent" if mode else "no token was sent"
        )
        return (
            f"{address} wants a token, and {found}; set RAY_AUTH_MODE=token and the cluster's "
            f"RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH"
        )
    return (
        f"{address} refused our token, or none was found; set RAY_AUTH_TOKEN, or "
        f"RAY_AUTH_TOKEN_PATH, to that of this cluster"
    )


def _job(details: JobDetails) -> Job:
    return Job(
        details.submission_id or "",
        details.status.value,
        details.message or "",
        details.driver_exit_code,
    )
