"""Running means of the metrics of a training, summed over all ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Number = float | Tensor
"""A value on the host, or one number in the memory of the device."""
_Entry = tuple[str, int]
"""The name of a metric, and 0 for its sum or 1 for its count."""


class Meter:
    """Adds up (sum, count) pairs by name until they are read.

    What is on the device is added up there, in fp64, and is copied to the host only when it is read. So
    adding does not wait for the device. The order of additions does not depend on when it is read.
    """

    def __init__(self) -> None:
        self._names: dict[str, None] = {}  # a set in the order of insertion
        self._host: dict[_Entry, float] = {}
        self._device: dict[tuple[_Entry, ...], Tensor] = {}
        self._where: dict[_Entry, tuple[_Entry, ...]] = {}

    def add(self, metrics: Mapping[str, tuple[Number, Number]]) -> None:
        entries: list[_Entry] = []
        values: list[Tensor] = []
        for name, pair in metrics.items():
            self._names[name] = None
            for part, value in enumerate(pair):
                entry = (name, part)
                if isinstance(value, Tensor):
                    entries.append(entry)
                    values.append(value.detach())
                    continue
                if entry in self._where:
                    if value == 0:
                        continue
                    self._read()
                self._host[entry] = self._host.get(entry, 0.0) + value
        if values:
            self._add_there(tuple(entries), values)

    @property
    def totals(self) -> dict[str, tuple[float, float]]:
        """This rank's (sum, count) pairs since the last :meth:`means`, for a checkpoint."""
        self._read()
        return {n: (self._host.get((n, 0), 0.0), self._host.get((n, 1), 0.0)) for n in self._names}

    def means(self, reduce: Callable[[Sequence[float]], list[float]]) -> dict[str, float]:
        """Means over everything since the last call; ``reduce`` adds values of all ranks.

        Every rank must call it at the same update.
        """
        return {name: total / count for name, (total, count) in self.sums(reduce).items() if count}

    def sums(
        self, reduce: Callable[[Sequence[float]], list[float]]
    ) -> dict[str, tuple[float, float]]:
        """(sum, count) of all ranks since the last call. Every rank must call it at the same update."""
        totals = self.totals
        names = sorted(totals)
        self._names, self._host = {}, {}
        if not names:
            return {}
        reduced = reduce([value for name in names for value in totals[name]])
        return dict(zip(names, zip(reduced[::2], reduced[1::2], strict=True), strict=True))

    def _add_there(self, entries: tuple[_Entry, ...], values: list[Tensor]) -> None:
        if entries not in self._device:
            if any(entry in self._where for entry in entries):
                self._read()
            before = [self._host.pop(entry, 0.0) for entry in entries]
            device = values[0].device
            self._device[entries] = (
                torch.tensor(before, dtype=torch.float64, device=device)
                if any(before)
                else torch.zeros(len(before), dtype=torch.float64, device=device)
            )
            self._where |= dict.fromkeys(entries, entries)
        if len({v.dtype for v in values}) > 1:
            values = [v.double() for v in values]
        self._device[entries].add_(torch.stack([v.reshape(()) for v in values]))

    def _read(self) -> None:
        for entries, sums in self._device.items():
            self._host |= dict(zip(entries, sums.tolist(), strict=True))
        self._device, self._where = {}, {}


class Smoothed:
    """A mean over about the last ``points`` additions, weighted by their counts."""

    def __init__(self, points: int = 10) -> None:
        self._keep = 1 - 1 / points
        self._total = self._count = 0.0

    def add(self, total: float, count: float) -> None:
        self._total = self._keep * self._total + total
        self._count = self._keep * self._count + count

    @property
    def mean(self) -> float | None:
        """None before the first count."""
        return self._total / self._count if self._count else None
