"""Products of a few rows, in the bits that more rows would have.

MKL keeps the bits of a row whatever the number of rows (``device.pin_threads`` asks for that), but on AMD's
processors not below four of them, for which it has code of its own (MKL 2024.2, measured for 1 to 200 rows).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

_FEWEST_ROWS = 4


def pad_few_rows(x_MI: Tensor) -> Tensor:
    """The rows (..., M, I), and rows of zeros behind them where they are too few."""
    missing = _FEWEST_ROWS - x_MI.shape[-2]
    return F.pad(x_MI, (0, 0, 0, missing)) if missing > 0 else x_MI
