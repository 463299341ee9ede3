"""Batches under a budget of padded samples."""

from __future__ import annotations

from collections.abc import Iterator


def cost_batches(lengths: dict[int, int], budget_samples: int) -> Iterator[list[int]]:
    """Rows in batches of at most ``budget_samples`` padded samples, longest first.

    Depends on the lengths alone, so that the bytes do not depend on who extracts the part.
    """
    batch: list[int] = []
    longest = 0
    for row in sorted(lengths, key=lambda r: (-lengths[r], r)):
        if batch and longest * (len(batch) + 1) > budget_samples:
            yield batch
            batch = []
        longest = lengths[row] if not batch else longest
        batch.append(row)
    if batch:
        yield batch
