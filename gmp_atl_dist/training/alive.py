"""Signs of life of a training, by which its driver tells one that is slow from one that hangs.

After every update the first rank writes the progress. Between updates it may work for long: while it starts,
validates an epoch or writes its files. There it puts a counter among the checkpoints. The driver only looks
whether either of them changes, so the clocks of two machines are never compared.
"""

from __future__ import annotations

import time
from collections.abc import Hashable

from gmp_atl_dist.errors import ArtifactError, WorkerError
from gmp_atl_dist.store.checkpoints import Checkpoints
from gmp_atl_dist.training.timing import Clock, Interval

_SIGN_EVERY_S = 30.0


class SignsOfLife:
    """Of the first rank; the others give none. A store that refuses them never stops the training."""

    def __init__(
        self, checkpoints: Checkpoints, rank: int, *, every_s: float = _SIGN_EVERY_S
    ) -> None:
        self._checkpoints = checkpoints
        self._first = rank == 0
        self._interval = Interval(every_s)

    def give(self) -> None:
        """Say that work goes on; at most one put in 30 s."""
        if not self._first or not self._interval.due:
            return
        self._interval.restart()
        try:
            self._checkpoints.note_alive()
        except ArtifactError:
            return  # the next checkpoint meets the same store, and says what is wrong with it


class StallWatch:
    """Raises once nothing that it is shown has changed for ``stalled_after_s`` seconds."""

    def __init__(self, label: str, stalled_after_s: float, clock: Clock = time.monotonic) -> None:
        self._label = label
        self._stalled_after_s = stalled_after_s
        self._clock = clock
        self._seen: dict[str, Hashable] = {}
        self._changed_s = clock()

    def see(self, what: str, value: Hashable) -> None:
        """``value`` is the newest of ``what``; None: there is none yet. Another thread may call it."""
        if value is not None and self._seen.get(what) != value:
            self._seen[what] = value
            self._changed_s = self._clock()

    def check(self) -> None:
        """Raises WorkerError if the training hangs, or has never started."""
        if self._clock() - self._changed_s <= self._stalled_after_s:
            return
        since = f"for {self._stalled_after_s:g} s (runtime.stalled_after_s)"
        if not self._seen:
            raise WorkerError(
                f"{self._label}: its workers have not started {since}; check that the nodes run, are not "
                f"held by other work and reach the root; then run the same command again"
            )
        raise WorkerError(
            f"{self._label}: no update, validation or checkpoint {since}; a worker hangs, its node cannot be "
            f"reached, or the root cannot be read here: look at the workers' output, end a process that does "
            f"not go on, and run the same command again to continue from the newest checkpoint; raise the "
            f"key if one update may take longer"
        )
