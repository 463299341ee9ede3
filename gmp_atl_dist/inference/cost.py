"""Batches of a forward pass, under a budget of padded samples."""

from __future__ import annotations

from collections.abc import Iterator

from gmp_atl_dist.partition import greedy_batches


def cost_batches(
    lengths: dict[int, int], budget_samples: int, *, padded: bool = True
) -> Iterator[list[int]]:
    """Rows in batches of at most ``budget_samples`` samples, padded or not, the longest first.

    ``lengths`` are the samples of each row. The batches depend on them alone, so the extracted bytes do
    not depend on the worker that extracts the part.
    """
    rows = sorted(lengths, key=lambda row: (-lengths[row], row))
    return greedy_batches(rows, budget_samples, lengths.__getitem__, padded=padded)
