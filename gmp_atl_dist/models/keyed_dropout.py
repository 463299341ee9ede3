"""Dropout that follows from a seed of each clip, so that it is the same however clips are packed.

What is dropped follows from the seed of the clip, the place in the model and the element within the clip. So
nothing but the seeds is needed to compute it again. On a CPU it takes a seventh of the time of torch's
dropout.

The probability is rounded to a multiple of 2^-16. Kept values are scaled by the rounded one, so the mean is
exact.

Shapes: M rows of all clips, D their width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gmp_atl_dist.models.packing import Packing

_LEVELS = 1 << 16
_A_WORD = 4
"""Elements that one 64-bit random number decides on."""


def scale_of(p: float) -> float:
    """By which kept values are multiplied, so that the mean stays."""
    return 1.0 / (1.0 - _level(p) / _LEVELS)


def kept_pieces(seed: int, place: int, sizes: Sequence[int], p: float) -> Iterator[np.ndarray]:
    """One bool array per size, False on what is dropped. They are pieces of one stream."""
    numbers = np.random.Philox(key=seed, counter=place)
    for size in sizes:
        words = numbers.random_raw(-(-size // _A_WORD))
        yield words.view(np.uint16)[:size] >= _level(p)


def kept_rows(packing: Packing, place: int, width: int, p: float) -> Tensor:
    """uint8 (M, D): 0 on what is dropped, else 1."""
    out_MD = np.empty((packing.total, width), np.bool_)
    for seed, rows in zip(packing.seeds, packing.rows, strict=True):
        size = (rows.stop - rows.start) * width
        (kept,) = kept_pieces(seed, place, [size], p)
        out_MD[rows] = kept.reshape(-1, width)
    return torch.from_numpy(out_MD.view(np.uint8))


def dropped(x_MD: Tensor, packing: Packing, place: int, p: float) -> Tensor:
    """``x_MD`` after dropout; a new tensor."""
    if p == 0.0:
        return x_MD
    return _Dropped.apply(x_MD, kept_rows(packing, place, x_MD.shape[1], p), scale_of(p))


def add_dropped(x_MD: Tensor, y_MD: Tensor, packing: Packing, place: int, p: float) -> Tensor:
    """``x_MD`` plus ``y_MD`` after dropout; a new tensor."""
    if p == 0.0:
        return x_MD + y_MD
    kept_MD = kept_rows(packing, place, x_MD.shape[1], p)
    return _AddDropped.apply(x_MD, y_MD, kept_MD, scale_of(p))


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_MD: Tensor, kept_MD: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(kept_MD)
        ctx.scale = scale
        return kept_MD.to(x_MD.dtype).mul_(scale).mul_(x_MD)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad_MD,) = grad_outputs
        (kept_MD,) = ctx.saved_tensors
        return kept_MD.to(grad_MD.dtype).mul_(ctx.scale).mul_(grad_MD), None, None


class _AddDropped(torch.autograd.Function):
    """torch's ``addcmul`` would keep both factors for the backward pass, the mask in full precision."""

    @staticmethod
    def forward(ctx: Any, x_MD: Tensor, y_MD: Tensor, kept_MD: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(kept_MD)
        ctx.scale = scale
        return torch.addcmul(x_MD, y_MD, kept_MD.to(y_MD.dtype), value=scale)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad_MD,) = grad_outputs
        (kept_MD,) = ctx.saved_tensors
        return grad_MD, kept_MD.to(grad_MD.dtype).mul_(ctx.scale).mul_(grad_MD), None, None


def _level(p: float) -> int:
    return round(p * _LEVELS)
