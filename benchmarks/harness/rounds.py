"""Rounds, medians with their spread, and rates that refuse to divide by nothing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


class MeasurementError(Exception):
    """There is too little to measure; the text says what to change."""


@dataclass(frozen=True)
class Spread:
    """The median of repeated measurements, with the smallest and the largest."""

    median: float
    smallest: float
    largest: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Raises: MeasurementError: there is no value."""
        ordered = sorted(values)
        if not ordered:
            raise MeasurementError("nothing was measured; raise the number of rounds")
        return cls(statistics.median(ordered), ordered[0], ordered[-1])

    def __format__(self, spec: str) -> str:
        """``f"{spread:.2f}"`` is ``1.68 (1.65 to 1.71)``, or ``1.68`` where nothing varies."""
        if self.smallest == self.largest:
            return format(self.median, spec)
        low, high = format(self.smallest, spec), format(self.largest, spec)
        return f"{format(self.median, spec)} ({low} to {high})"


def interleaved(subjects: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Measure every subject once per round, so that a busy minute of the machine affects all of them.

    Returns:
        The measurements of each subject, one per round.
    """
    measured: dict[str, list[T]] = {name: [] for name in subjects}
    for number in range(1, rounds + 1):
        for name, measure in subjects.items():
            started_s = time.perf_counter()
            measured[name].append(measure())
            took_s = time.perf_counter() - started_s
            print(f"round {number} of {rounds}, {name}: {took_s:.1f} s", flush=True)
    return measured


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """The ratio of each round; both values of a round were measured one after the other."""
    pairs = zip(numerators, denominators, strict=True)
    return Spread.of(rate(a, b, "the ratio of a round") for a, b in pairs)


def rate(amount: float, per: float, what: str) -> float:
    """``amount`` divided by ``per``, which is a time or another amount.

    Raises:
        MeasurementError: ``per`` is not above zero, because too little was measured.
    """
    if per <= 0:
        raise MeasurementError(f"{what}: nothing is left to divide by ({per:g}); measure more")
    return amount / per
