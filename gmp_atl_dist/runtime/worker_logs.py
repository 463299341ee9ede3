"""What a worker process prints, kept below the root beside the driver's log.

Ray writes the standard output and the standard error of each worker into files of its node, and copies them
to the driver. The files go with the pod, and the copy with the driver or the network. So each worker puts its
own files into ``run_logs/TIME-PID/NODE-WORK-PID.log``, every minute and when a piece of work ends.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gmp_atl_dist.redaction import show_traceback
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.kept_logs import PUT_S, LogKeeper

_log = logging.getLogger(__name__)

VARIABLE = "GMP_ATL_KEPT_LOGS"
"""In the environment of workers: where they keep their logs. Unset: they keep none."""
_STREAMS = (("standard output", 1), ("standard error", 2))
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._]+")

_work = "worker"
_keeper: LogKeeper | None = None


def place_of(root: str, folder: str) -> str:
    """The value of :data:`VARIABLE` for logs in ``folder`` below ``root``."""
    return json.dumps({"root": root, "folder": folder})


def start_keeping() -> None:
    """In a worker, at its start: keep its log, if that is wanted."""
    global _keeper
    wanted = os.environ.get(VARIABLE)
    if not wanted or _keeper is not None:
        return
    try:
        place = json.loads(wanted)
        store = Store.open(place["root"], PUT_S)
        _keeper = _Keeper(store, place["folder"])
        _keeper.start()
    except Exception as e:  # a worker must not fail because of its logs
        _log.warning("the log of this worker is not kept: %s", e)


def call_log(work: str) -> None:
    """Name what this process works on, such as ``warmup fold1 rank 0``; a part of the name of its log."""
    global _work
    _work = work


def work_done() -> None:
    """A task has ended: keep the log soon. Ray may end the process without a word."""
    if _keeper is not None:
        _keeper.soon()


@contextmanager
def keeping_log() -> Iterator[None]:
    """Keep the log at the end of the block, however it ends; the store has some 20 s for it."""
    try:
        yield
    except Exception as e:
        # Ray prints the traceback only where the error arrives.
        if _keeper is not None:
            show_traceback(type(e), e, e.__traceback__)
        raise
    finally:
        if _keeper is not None:
            _keeper.look()


def files_of_this_process() -> list[tuple[str, Path]]:
    """The files that the standard streams go to; none where they go elsewhere."""
    found = [(name, Path(os.path.realpath(f"/proc/self/fd/{number}"))) for name, number in _STREAMS]
    return [(name, path) for name, path in found if path.is_file()]


class _Keeper(LogKeeper):
    """Its object has the name of the work that the process does when the log is put first."""

    def __init__(self, store: Store, folder: str) -> None:
        super().__init__(store, "", files_of_this_process)
        self._folder = folder

    def look(self) -> None:
        # Not before there is text: the first work gives the name.
        if not self.path and any(path.stat().st_size for _, path in files_of_this_process()):
            words = (socket.gethostname(), _work, str(os.getpid()))
            self.path = f"{self._folder}/{'-'.join(_NOT_IN_A_NAME.sub('-', w) for w in words)}.log"
        super().look()
