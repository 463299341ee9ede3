"""Intervals, and the training rate of an attempt."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gmp_atl_dist.audio import SAMPLE_RATE_HZ

Clock = Callable[[], float]


class Interval:
    """Due at the start (or not), and again ``every_s`` seconds after each :meth:`restart`."""

    def __init__(
        self, every_s: float, *, due_at_first: bool = True, clock: Clock = time.monotonic
    ) -> None:
        self._every_s = every_s
        self._clock = clock
        self._last_s = float("-inf") if due_at_first else clock()

    @property
    def due(self) -> bool:
        return self._clock() - self._last_s >= self._every_s

    def restart(self) -> None:
        self._last_s = self._clock()


class TrainingPace:
    """The audio that an attempt has processed, and the time that it waited for data."""

    def __init__(self, world_size: int, clock: Clock = time.monotonic) -> None:
        self._world_size = world_size
        self._clock = clock
        self._started_s = clock()
        self._waited_s = 0.0
        self._num_samples = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The time within the block was spent waiting for data."""
        started_s = self._clock()
        yield
        self._waited_s += self._clock() - started_s

    def add(self, num_samples: float) -> None:
        """Count ``num_samples`` that this rank has trained on."""
        self._num_samples += num_samples

    def ends_in_s(self, done: int, left: int) -> float | None:
        """Seconds until ``left`` more updates, at the pace of the ``done`` ones; None if there is none."""
        return (self._clock() - self._started_s) * left / done if done > 0 and left > 0 else None

    def metrics(self, stalled_s: float) -> dict[str, float]:
        """Rate and shares since the attempt started; ``stalled_s`` was spent on checkpoints."""
        elapsed_s = self._clock() - self._started_s
        audio_s = self._world_size * self._num_samples / SAMPLE_RATE_HZ
        return {
            "audio_h_per_h": audio_s / elapsed_s,
            "data_wait_share": self._waited_s / elapsed_s,
            "checkpoint_stall_share": stalled_s / elapsed_s,
        }
