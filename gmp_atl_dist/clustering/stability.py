"""The agreement of two labellings of the same frames, whatever their ids."""

from __future__ import annotations

import numpy as np


def adjusted_rand(a_M: np.ndarray, b_M: np.ndarray) -> float:
    """Adjusted Rand index (Hubert and Arabie, 1985), by scikit-learn: 1 is full agreement, 0 is chance."""
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(a_M, b_M))
