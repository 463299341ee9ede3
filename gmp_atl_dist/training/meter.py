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
        names = sorted(self._totals)
        flat = [value for name in names for value in self._totals[name]]
        totals = torch.tensor(flat, dtype=torch.float64, device=device)
        dist.all_reduce(totals)
        self._totals = {}
        pairs = totals.reshape(-1, 2).tolist()
        return {
            name: total / count for name, (total, count) in zip(names, pairs, strict=True) if count
        }
