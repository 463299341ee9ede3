"""Numbers that follow from measured rates: readers of the next stage, and a better size of parts.

A stage that streams measures how long a reader takes for a part, how long a worker computes on one, and how
long it waits between two. The first two give the readers that keep its workers busy. They are used for the
next stage of the same kind in this process, which is the next fold or iteration of a run.

The size of parts is hashed (``extract.part_frames``), so it never follows from a measurement by itself. A
line says what it should be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from gmp_atl_dist.config import StreamWorkersConfig
from gmp_atl_dist.runtime import TaskResult, number_of_readers
from gmp_atl_dist.tags import Tags

_SPARE = 1.25
"""Readers beyond the mean need: parts and the store's answers differ."""
_WAIT_SHARE = 0.1
"""Of a worker's time that may go to waiting."""
_LEAST_PARTS = 5
"""Of a worker, so that its start is no large share of what was measured."""


@dataclass
class FeedRates:
    """Adds up what the results of a stage's parts say about reading and computing."""

    parts: int = 0
    _read_s: float = 0.0
    _workers: dict[str, TaskResult] = field(default_factory=dict)

    def add(self, result: TaskResult) -> None:
        self.parts += 1
        self._read_s += result.read_s
        before = self._workers.get(result.worker)
        # A worker's results may overtake each other.
        if before is None or before.alive_s < result.alive_s:
            self._workers[result.worker] = result

    @property
    def read_s(self) -> float:
        """Seconds of a reader for a part; 0 if nothing was read."""
        return self._read_s / self.parts if self.parts else 0.0

    @property
    def compute_s(self) -> float:
        """Seconds of a worker for a part."""
        return sum(r.busy_s for r in self._workers.values()) / self.parts if self.parts else 0.0

    @property
    def wait_s(self) -> float:
        """Seconds that a worker waits for each part that it computes."""
        waited_s = sum(r.alive_s - r.busy_s for r in self._workers.values())
        return max(0.0, waited_s) / self.parts if self.parts else 0.0

    @property
    def is_steady(self) -> bool:
        """Enough was measured to follow from it."""
        enough = self.parts >= _LEAST_PARTS * len(self._workers)
        return bool(self._workers) and enough and self.read_s > 0 and self.compute_s > 0

    def readers(self, workers: int) -> int:
        """Readers that keep ``workers`` busy."""
        return max(1, math.ceil(_SPARE * workers * self.read_s / self.compute_s))

    def advice(self, label: str, workers: StreamWorkersConfig, part_frames: int) -> str | None:
        """A line where workers wait too much; None where they do not, or too little was measured."""
        if not self.is_steady or self.wait_s <= _WAIT_SHARE * (self.wait_s + self.compute_s):
            return None
        measured = (
            f"{label}: of each part a worker computed {self.compute_s:.3g} s and waited {self.wait_s:.3g} s, "
            f"a reader took {self.read_s:.3g} s"
        )
        needed = self.readers(workers.max_workers)
        if number_of_readers(workers) < needed:
            what = "set runtime.extract.readers" if workers.readers else "the next one has readers"
            return f"{measured}; {what} = {needed}"
        # What is waited for each part does not grow with it.
        times = self.wait_s / self.compute_s * (1 - _WAIT_SHARE) / _WAIT_SHARE
        return (
            f"{measured}; extract.part_frames = {_rounded(part_frames * times)} would leave "
            f"{100 * _WAIT_SHARE:.0f} % of waiting (other parts: the features are computed again)"
        )


_measured: dict[tuple[str, bool], FeedRates] = {}


def fed(workers: StreamWorkersConfig, tags: Tags) -> StreamWorkersConfig:
    """The workers with the readers that the last stage of this kind needed, unless they are configured."""
    rates = _measured.get(_kind(workers, tags))
    if workers.readers is not None or rates is None:
        return workers
    return workers.model_copy(update={"readers": rates.readers(workers.max_workers)})


def remember(workers: StreamWorkersConfig, tags: Tags, rates: FeedRates) -> None:
    """Let the next stage of this kind follow from these rates."""
    if rates.is_steady:
        _measured[_kind(workers, tags)] = rates


def _kind(workers: StreamWorkersConfig, tags: Tags) -> tuple[str, bool]:
    """``extract2`` of a second iteration is an ``extract``; a GPU has rates of its own."""
    return tags.stage.rstrip("0123456789"), bool(workers.gpus)


def forget() -> None:
    """Nothing has been measured."""
    _measured.clear()


def _rounded(frames: float) -> int:
    """To two digits, and at most what the configuration allows."""
    digits = max(0, int(math.log10(max(frames, 1.0))) - 1)
    return min(1_000_000, math.ceil(frames / 10**digits) * 10**digits)
