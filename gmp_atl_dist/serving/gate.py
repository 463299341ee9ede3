"""Bounds what a server holds: a request enters with the bytes that it may bring, or is refused at once."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from gmp_atl_dist.serving.limits import MIB
from gmp_atl_dist.serving.refusals import overloaded

_SMOOTHING = 0.1
_LONGEST_RETRY_S = 30


class Gate:
    """Counts the requests and the bytes inside. It belongs to one event loop, so it needs no lock.

    Args:
        max_requests: most requests inside.
        max_bytes: most bytes of their uploads.
    """

    def __init__(self, max_requests: int, max_bytes: int) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._bytes = 0
        self._mean_s = 1.0
        self.requests = 0

    @property
    def retry_after_s(self) -> int:
        """Seconds after which a part of the queue is done: the smoothed time of one request, rounded up."""
        return min(_LONGEST_RETRY_S, max(1, math.ceil(self._mean_s)))

    @contextmanager
    def admit(self, num_bytes: int) -> Iterator[None]:
        """Hold a place and ``num_bytes`` for the length of the block.

        Raises:
            Refusal: there is no place, or not enough memory; 503 with ``Retry-After``.
        """
        if self.requests >= self._max_requests:
            raise overloaded(f"{self.requests} requests wait already", self.retry_after_s)
        if self._bytes + num_bytes > self._max_bytes:
            raise overloaded(
                f"uploads of {self._bytes / MIB:.0f} MiB are held already", self.retry_after_s
            )
        self.requests += 1
        self._bytes += num_bytes
        started_s = time.monotonic()
        try:
            yield
        finally:
            self.requests -= 1
            self._bytes -= num_bytes
            self._mean_s += _SMOOTHING * (time.monotonic() - started_s - self._mean_s)
