"""The check of nearest centroids before anything is summed with their ids.

FAISS gives a frame that is not finite the id -1 on a CPU. Its GPU builds before 1.15 give it the id 0 or
another one, with a distance that is not finite or the largest float. An id outside the codebook would
write outside the sums.

Shape suffixes: M frames.
"""

from __future__ import annotations

import numpy as np

LARGEST_SQUARED = float(np.finfo(np.float32).max) / 2
"""A squared distance above this is that of a frame that was never compared."""


def usable(ids_M: np.ndarray, squared_M: np.ndarray, k: int) -> np.ndarray:
    """bool [M]: the id is one of ``k``, and the squared distance to it is a finite number."""
    return (ids_M >= 0) & (ids_M < k) & (squared_M <= LARGEST_SQUARED) & (squared_M >= 0)


def first_unusable(ids_M: np.ndarray, squared_M: np.ndarray, k: int) -> int | None:
    """The first row whose id or distance cannot be used; None if all can."""
    rows = np.flatnonzero(~usable(ids_M, squared_M, k))
    return int(rows[0]) if rows.size else None
