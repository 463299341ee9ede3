"""Ends a run whose cluster's head is gone, with a message and exit code 7.

Ray's own code ends a driver 60 s after its head was lost: in C++, with exit code 1 and a line in the log of
libraries, so that a person sees a command that ends without a word. The main thread may be in a call of Ray
that never comes back then. So this thread says what is wrong, shortly before, and ends the process. That is
as safe as a kill: the same command continues.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from gmp_atl_dist import stopping
from gmp_atl_dist.errors import WorkerError
from gmp_atl_dist.redaction import say_error
from gmp_atl_dist.run_log import current_log
from gmp_atl_dist.runtime.answering import why_silent

_LOST_AFTER_S = 45.0
"""Less than Ray's 60 s. A head that is restarted in place answers again within it."""
_LOOK_EVERY_S = 2.0
_TRY_S = 5.0
_SHOW_CURSOR = "\x1b[?25h"


class HeadWatch:
    """A thread that asks the head at ``address`` every two seconds whether it is there.

    Args:
        address: HOST:PORT of the cluster's control service; other forms are not watched.
        end: called once with what to say, after the head has been silent for 45 s.
    """

    def __init__(self, address: str, end: Callable[[str], object] | None = None) -> None:
        self._address = address
        self._end = end or end_run
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="head-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._over.set()

    def _watch(self) -> None:
        silent_since_s: float | None = None
        while not self._over.wait(_LOOK_EVERY_S):
            problem = why_silent(self._address, _TRY_S)
            now_s = time.monotonic()
            if not problem:
                silent_since_s = None
            elif silent_since_s is None:
                silent_since_s = now_s
            elif now_s - silent_since_s >= _LOST_AFTER_S and not self._over.is_set():
                self._end(
                    f"the head of Ray at {self._address} has not answered for "
                    f"{now_s - silent_since_s:.0f} s: {problem}; this run ends: finished stages, parts and "
                    f"checkpoints are kept; start the head again, then run the same command again to continue"
                )
                return


def end_run(text: str) -> None:
    """Say it on the terminal and in the log, and end this process with the exit code of lost workers."""
    log = current_log()
    for stream in (sys.stderr,) if log is None else (log.err, sys.stderr):
        # A terminal that has hung up takes no line, and the run ends all the same.
        with suppress(OSError, ValueError):
            say_error(f"{_SHOW_CURSOR if stream.isatty() else ''}error: {text}", stream)
    stopping.kill_children()
    stopping.leave(WorkerError.exit_code)
