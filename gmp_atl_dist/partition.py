"""Cutting a sequence of items into pieces of about equal size, and into batches under a limit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

ItemT = TypeVar("ItemT")


def piece_starts(sizes: np.ndarray, num_pieces: int) -> np.ndarray:
    """int64 [num_pieces + 1]: the index of the first item of each piece, and the number of items.

    An item belongs to the piece in which its midpoint lies. So the cut follows from the sizes and the
    number of pieces alone. A piece may be empty where an item is larger than a piece. Integer sizes are
    cut exactly.
    """
    total = int(sizes.sum())
    twice_midpoint = 2 * np.cumsum(sizes) - sizes
    edges = [-(-2 * total * i // num_pieces) for i in range(num_pieces + 1)]
    starts = np.searchsorted(twice_midpoint, np.array(edges, np.int64), side="left")
    # Items of size 0 at the end have their midpoint on the last edge.
    starts[-1] = len(sizes)
    return starts


def piece_numbers(sizes: np.ndarray, num_pieces: int) -> np.ndarray:
    """int64 [items]: the piece that each item belongs to."""
    return np.repeat(np.arange(num_pieces), np.diff(piece_starts(sizes, num_pieces)))


def greedy_batches(
    items: Iterable[ItemT], limit: int, size: Callable[[ItemT], int], *, padded: bool = False
) -> Iterator[list[ItemT]]:
    """Items in order, in batches that are as large as ``limit`` allows.

    The size of a batch is the sum of its items' sizes. If ``padded``, each item counts as much as the
    largest one of its batch. An item larger than ``limit`` is a batch of its own.
    """
    batch: list[ItemT] = []
    total = largest = 0
    for item in items:
        item_size = size(item)
        grown = max(largest, item_size) * (len(batch) + 1) if padded else total + item_size
        if batch and grown > limit:
            yield batch
            batch, total, largest = [], 0, 0
        batch.append(item)
        total, largest = total + item_size, max(largest, item_size)
    if batch:
        yield batch
