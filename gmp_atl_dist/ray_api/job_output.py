"""What a job prints, as it comes: whole lines, also over connections that break."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable

from gmp_atl_dist.errors import WorkerError

_SILENT_S = 30.0
"""A connection that says nothing for so long is not believed: the dashboard is asked."""
_LAST_BEFORE_THE_JOB = "Running entrypoint for job "
_BEFORE_THE_JOB = re.compile(rf"{_LAST_BEFORE_THE_JOB}|\S+ \S+\s+INFO job_manager\.py:\d+ -- |\s*$")


async def next_of(output: AsyncIterator[str], reach: Callable[[], None]) -> str | None:
    """The next text; None at the end. A job may be silent for days, so silence alone means nothing.

    Args:
        output: texts of the job as they come.
        reach: raises a WorkerError if the dashboard does not answer.

    Raises:
        OSError: the connection is silent, and the dashboard does not answer either.
    """
    coming = asyncio.ensure_future(anext(output, None))
    try:
        while not (await asyncio.wait([coming], timeout=_SILENT_S))[0]:
            try:
                await asyncio.to_thread(reach)
            except WorkerError as e:
                raise ConnectionError(e.message) from e
    except BaseException:
        coming.cancel()
        raise
    return coming.result()


class Cut(Exception):
    """The connection broke after ``read`` characters of the output."""

    def __init__(self, read: int, progressed: bool) -> None:
        super().__init__()
        self.read = read
        self.progressed = progressed


class JobLines:
    """A job's output line by line, without the lines that Ray writes before those of the job."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._rest = ""
        self._started = False

    def add(self, text: str) -> None:
        whole, end, self._rest = (self._rest + text).rpartition("\n")
        self._pass_on(whole + end)

    def end(self) -> None:
        """The output is complete; its last line may have no end."""
        self._pass_on(self._rest)
        self._rest = ""

    def _pass_on(self, text: str) -> None:
        lines = text.splitlines(keepends=True)
        while lines and not self._started:
            if _BEFORE_THE_JOB.match(lines[0]):
                self._started = lines.pop(0).startswith(_LAST_BEFORE_THE_JOB)
            else:
                self._started = True
        if lines:
            self._write("".join(lines))
