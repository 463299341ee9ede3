"""Holds back the decoding of long recordings, so that those which wait to be predicted fit into memory.

How long a compressed recording is shows only when its header is read. The threads that read ahead would
each decode one of hours at the same time, and several would then wait for the model.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class DecodingRoom:
    """Lets the oldest recording pass always, and a later one where all that are held stay below a limit."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._held: dict[int, int] = {}
        """Bytes by position: of the recordings that are being decoded, or are decoded and not taken."""
        self._oldest = 0
        self._closed = False
        self._changed = threading.Condition()

    @contextmanager
    def for_one(self, order: int, num_bytes: int) -> Iterator[None]:
        """Waits for room for the recording at this position.

        Args:
            order: 0 for the first recording, then one more each.
            num_bytes: of its samples. They stay counted until it is taken, or until decoding fails.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._may_begin(order, num_bytes))
            self._held[order] = num_bytes
        try:
            yield
        except BaseException:
            with self._changed:
                self._held.pop(order, None)
                self._changed.notify_all()
            raise

    def taken(self) -> None:
        """The oldest recording was taken and the next one is asked for."""
        with self._changed:
            self._held.pop(self._oldest, None)
            self._oldest += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Wake all waiting threads, so that they end. No recording is taken after this call."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _may_begin(self, order: int, num_bytes: int) -> bool:
        held = sum(self._held.values())
        return self._closed or order <= self._oldest or held + num_bytes <= self._most_bytes
