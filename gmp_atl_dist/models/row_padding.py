"""Matrix products of few rows, with the same bits as in a product of many rows.

With the setting of ``device.pin_threads``, MKL computes a row with the same bits for any number of rows. On
AMD processors this fails below four rows, for which MKL has separate code (MKL 2024.2, measured for 1 to 200
rows).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

_FEWEST_ROWS = 4


def pad_few_rows(x_MI: Tensor) -> Tensor:
    """The rows (..., M, I), followed by rows of zeros where there are fewer than four."""
    missing = _FEWEST_ROWS - x_MI.shape[-2]
    return F.pad(x_MI, (0, 0, 0, missing)) if missing > 0 else x_MI
