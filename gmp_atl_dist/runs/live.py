"""Which runs work now, as far as a deletion may trust it: without trust in the clocks of two machines.

A driver writes every 15 s when it was last seen, by its own clock (``store/run_state.py``). For ``status``
the difference to this machine's clock tells whether it lives. Before something is moved or deleted that is
not enough: a driver whose clock is two minutes late would look dead. So a run that looks dead is watched.
If its record does not change for :data:`LOST_AFTER_S` of this machine's time, it is dead.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Sequence

from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.run_state import CLOCKS_DIFFER_S, LOST_AFTER_S, run_state
from gmp_atl_dist.store.runs import RunRecord, read_run, run_names

_LOOK_EVERY_S = 5.0
_log = logging.getLogger(__name__)


class LiveRuns:
    """Tells which runs of a root work now. It remembers which were found dead, and does not wait twice.

    Args:
        store: the root.
        watch_s: how long a run is watched that looks dead by the clock.
    """

    def __init__(self, store: Store, *, watch_s: float = LOST_AFTER_S) -> None:
        self._store = store
        self._watch_s = watch_s
        self._dead: dict[str, float] = {}
        """When runs were last seen that are dead."""

    def find(self, names: Sequence[str] | None = None) -> list[RunRecord]:
        """The records of the runs that work now, of all runs or of ``names``.

        It takes up to ``watch_s`` if a run looks dead only by the clock, and says so in the log.

        Raises:
            ArtifactError: a record is damaged, so it is not known whether its run works.
        """
        chosen = run_names(self._store) if names is None else names
        records = [r for name in chosen if (r := read_run(self._store, name)) is not None]
        live = [r for r in records if run_state(r) == "running"]
        return live + self._renewed([r for r in records if self._is_undecided(r)])

    def _is_undecided(self, record: RunRecord) -> bool:
        last = record.attempts[-1] if record.attempts else None
        if last is None or last.state != "running" or run_state(record) == "running":
            return False
        if last.pid and last.machine.host == socket.gethostname():
            return False  # its process was looked up
        if time.time() - last.seen_s > LOST_AFTER_S + CLOCKS_DIFFER_S:
            return False
        return self._dead.get(record.name) != last.seen_s

    def _renewed(self, records: Sequence[RunRecord]) -> list[RunRecord]:
        """Those of ``records`` whose drivers write again while this waits."""
        left = {record.name: record for record in records}
        for name, record in left.items():
            last = record.attempts[-1]
            _log.warning(
                "run %s on %s was last seen %.0f s ago by the clock of this machine, which may differ from "
                "its own: its record is watched for %.0f s",
                *(name, last.machine.host, time.time() - last.seen_s, self._watch_s),
            )
        live: list[RunRecord] = []
        until_s = time.monotonic() + self._watch_s
        while left:
            for name, before in list(left.items()):
                now = read_run(self._store, name)
                if now is None:
                    del left[name]
                elif now.attempts[-1:] != before.attempts[-1:]:
                    del left[name]
                    if now.attempts[-1].state == "running":
                        live.append(now)
            if not left or time.monotonic() >= until_s:
                break
            time.sleep(min(_LOOK_EVERY_S, max(0.0, until_s - time.monotonic())))
        self._dead |= {name: record.attempts[-1].seen_s for name, record in left.items()}
        return live
