"""Running means of the metrics of a training, summed over all ranks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist


class Meter:
    """Adds up (sum, count) pairs by name until they are read."""

    def __init__(self) -> None:
        self._totals: dict[str, tuple[float, float]] = {}

    def add(self, metrics: Mapping[str, tuple[float, float]]) -> None:
        for name, (total, count) in metrics.items():
            old_total, old_count = self._totals.get(name, (0.0, 0.0))
            self._totals[name] = (old_total + total, old_count + count)

    @property
    def totals(self) -> dict[str, tuple[float, float]]:
        """This rank's (sum, count) pairs since the last :meth:`means`, for a checkpoint."""
        return dict(self._totals)

    def means(self, device: torch.device) -> dict[str, float]:
        """Means over everything since the last call. Every rank must call it at the same update."""
        return {name: total / count for name, (total, count) in self.sums(device).items() if count}

    def sums(self, device: torch.device) -> dict[str, tuple[float, float]]:
        """(sum, count) of all ranks since the last call. Every rank must call it at the same update."""
        names = sorted(self._totals)
        if not names:
            return {}
        flat = [value for name in names for value in self._totals[name]]
        totals = torch.tensor(flat, dtype=torch.float64, device=device)
        dist.all_reduce(totals)
        self._totals = {}
        pairs = totals.reshape(-1, 2).tolist()
        return {name: (total, count) for name, (total, count) in zip(names, pairs, strict=True)}


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
