"""Calls in a process of its own, so that no subject inherits memory, caches or threads of another.

The process is started anew and not forked. Its output goes to a file, which an error shows the end of.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

import psutil

from benchmarks.harness.rounds import MeasurementError

T = TypeVar("T")

_REPOSITORY = Path(__file__).resolve().parents[2]
_SHOWN_CHARACTERS = 2000


class Child(Generic[T]):
    """A call that runs in a process of its own from now on.

    Args:
        call: a ``functools.partial`` of a function at the top of a module.
        threads: cores for every library of the process; None leaves each library its default.
        show: pass on what the call prints to its standard output.
    """

    def __init__(
        self, call: Callable[[], T], threads: int | None = None, show: bool = False
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="gmp-atl-bench-")
        folder = Path(self._folder.name)
        self._log, self._answer = folder / "log", folder / "answer"
        (folder / "call").write_bytes(pickle.dumps(call))
        paths = [str(_REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.harness.child", str(folder), str(threads or 0)],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                stdin=subprocess.DEVNULL,
                stdout=None if show else log,
                stderr=subprocess.STDOUT,
            )

    def result(self) -> T:
        """What the call returned.

        Raises:
            MeasurementError: raised by the call, as it was.
            RuntimeError: the call or its process failed; shows the end of its output.
        """
        try:
            code = self._process.wait()
            if code or not self._answer.exists():
                output = self._log.read_text(errors="replace")[-_SHOWN_CHARACTERS:]
                raise RuntimeError(f"the process of a subject ended with {code}:\n{output}")
            answer = pickle.loads(self._answer.read_bytes())
        finally:
            self.close()
        if isinstance(answer, MeasurementError):
            raise answer
        return answer

    def ended(self, within_s: float) -> bool:
        """Whether the call has ended; waits at most ``within_s`` seconds for it."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(within_s)
        return self._process.poll() is not None

    def close(self) -> None:
        """End the process if it still runs, with all that it started, and remove its files."""
        with suppress(psutil.NoSuchProcess):
            below = psutil.Process(self._process.pid).children(recursive=True)
            self._process.kill()
            for process in below:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()


def run_alone(call: Callable[[], T], threads: int | None = None, show: bool = False) -> T:
    """Run a call in a process of its own and wait for it; see :class:`Child`."""
    return Child(call, threads, show).result()


def _main() -> None:
    folder, threads = Path(sys.argv[1]), int(sys.argv[2])
    if threads:
        from gmp_atl_dist.device import pin_threads

        # Before the call is read, which imports the libraries.
        pin_threads(threads)
    call = pickle.loads((folder / "call").read_bytes())
    try:
        answer = call()
    except MeasurementError as e:
        answer = e
    partial_file = folder / "answer.partial"
    partial_file.write_bytes(pickle.dumps(answer))
    partial_file.rename(folder / "answer")
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of DeepSpeed would keep an interpreter alive that has nothing left to do.
    os._exit(0)


if __name__ == "__main__":
    _main()
