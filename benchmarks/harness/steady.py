"""Clocks of a run of many items, read after the first ones, which are warm-up, and after the last one."""

from __future__ import annotations

import time
from dataclasses import dataclass

from benchmarks.harness.processes import descendants_cpu_s
from benchmarks.harness.rounds import MeasurementError, rate


@dataclass(frozen=True)
class Steady:
    """What the items after the warm-up took: wall time, CPU of this process, CPU of those below it."""

    items: int
    wall_s: float
    own_cpu_s: float
    others_cpu_s: float

    @property
    def items_per_s(self) -> float:
        return rate(self.items, self.wall_s, "items per second")


class SteadyClock:
    """Call :meth:`tick` at the end of each item.

    Args:
        items: how many there will be.
        warm_up: how many of them do not count.
        what: the items are, for the error.
        names: of the processes whose CPU counts; all below this one by default.

    Raises:
        MeasurementError: no item would be left after the warm-up.
    """

    def __init__(self, items: int, warm_up: int, what: str, names: tuple[str, ...] = ()) -> None:
        if items <= warm_up:
            raise MeasurementError(
                f"{items} {what} are too few: the first {warm_up} are warm-up and do not count; "
                f"measure {warm_up + 1} or more"
            )
        self._items, self._warm_up, self._names = items, warm_up, names
        self._ticks = 0
        self._clocks: dict[int, tuple[float, float, float]] = {}

    @property
    def is_warm(self) -> bool:
        """Whether the items that end from now on count."""
        return self._ticks >= self._warm_up

    def tick(self) -> None:
        """An item has ended. Reading the CPU of other processes takes milliseconds, so it is done twice."""
        self._ticks += 1
        if self._ticks in (self._warm_up, self._items):
            cpu_s = descendants_cpu_s(self._names)
            self._clocks[self._ticks] = (time.perf_counter(), time.process_time(), cpu_s)

    def steady(self) -> Steady:
        """The difference of the two readings.

        Raises:
            MeasurementError: fewer items have ended than were announced.
        """
        if self._items not in self._clocks:
            raise MeasurementError(f"{self._ticks} of {self._items} items have ended")
        start, end = self._clocks[self._warm_up], self._clocks[self._items]
        wall_s, own_cpu_s, others_cpu_s = (b - a for a, b in zip(start, end, strict=True))
        return Steady(self._items - self._warm_up, wall_s, own_cpu_s, others_cpu_s)
