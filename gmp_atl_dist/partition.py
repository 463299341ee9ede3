"""Cutting a sequence of items into pieces of about equal size.

The rule is the same everywhere: an item belongs to the piece in which its midpoint lies. So the cut
follows from the sizes and the number of pieces alone.
"""

from __future__ import annotations

import numpy as np


def piece_starts(sizes: np.ndarray, num_pieces: int) -> np.ndarray:
    """int64 [num_pieces + 1]: the index of the first item of each piece, and the number of items.

    A piece may be empty where an item is larger than a piece. Integer sizes are cut exactly.
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
