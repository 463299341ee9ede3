"""Sums on a device that do not depend on the order of adding: whole numbers instead of floats.

A GPU adds with atomic operations, in another order each time. Sums of floats then differ in the last bit.
Sums of whole numbers do not. A value is multiplied by a power of two and rounded to int64:

- A stored feature is fp16, a multiple of 2^-24 below 2^16. Multiplied by 2^24 it is a whole number below
  2^40, so nothing is rounded.
- A value of a unit row (cosine metric) is at most 1 and is rounded to multiples of 2^-40.
- fp32 frames below 2^e are rounded to multiples of 2^(e - 40).

:data:`MOST_ROWS` values below 2^40 add up to less than 2^63.

Shape suffixes: M frames, D hidden, K clusters.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from gmp_atl_dist.clustering.state import Metric

MOST_ROWS = 1 << 22
"""Frames that may be added to one accumulator."""
FP16_BITS = 24
_VALUE_BITS = 40
_FP32_BITS = 60
_SQUARE_BITS = 44
"""Squared distances of a block (at most 2^16 frames) are rounded to this many bits below the largest."""
_CHUNK_ROWS = 16_384
"""Rows that are converted at a time, because int64 takes four times the memory of fp16."""


def fraction_bits(x_MD: np.ndarray, metric: Metric) -> int:
    """The power of two that values of these frames are multiplied by, once they are prepared."""
    if metric == "cosine":
        return _VALUE_BITS
    if x_MD.dtype == np.float16:
        return FP16_BITS
    largest = float(np.abs(x_MD).max(initial=0.0))
    if not (0.0 < largest < math.inf):
        return FP16_BITS
    return _VALUE_BITS - math.frexp(largest)[1]


def add_rows(sums_KD: torch.Tensor, ids_M: torch.Tensor, x_MD: torch.Tensor, bits: int) -> None:
    """Add fp32 rows, times 2^``bits``, to the rows ``ids_M`` of int64 sums."""
    # A multiplication by a power of two changes the exponent alone. Only fp64 has room for a large one.
    wide = torch.float32 if abs(bits) <= _FP32_BITS else torch.float64
    for start in range(0, len(x_MD), _CHUNK_ROWS):
        rows = slice(start, start + _CHUNK_ROWS)
        whole_MD = (x_MD[rows].to(wide) * 2.0**bits).round_().to(torch.int64)
        sums_KD.index_add_(0, ids_M[rows], whole_MD)


def sums_of_squares(squared_M: torch.Tensor, ids_M: torch.Tensor, k: int) -> torch.Tensor:
    """fp64 [K]: the sum of the squared distances (fp32, not negative) of each cluster of one block.

    The power of two follows from the largest of the block. It is made of bits, because a device's ``pow``
    may round; the host does not wait for it.
    """
    # A float32 is below 2^(exponent - 126), where exponent is that of its bits.
    exponent = (squared_M.max().view(torch.int32) >> 23).to(torch.int64)
    whole_M = (squared_M.double() * _power_of_two(_SQUARE_BITS + 126 - exponent)).round_()
    sums_K = torch.zeros(k, dtype=torch.int64, device=squared_M.device)
    sums_K.index_add_(0, ids_M, whole_M.to(torch.int64))
    return sums_K.double() * _power_of_two(exponent - _SQUARE_BITS - 126)


def _power_of_two(exponent: torch.Tensor) -> torch.Tensor:
    """fp64 2^``exponent`` of an int64 tensor, from -1022 to 1023."""
    return ((exponent + 1023) << 52).view(torch.float64)
