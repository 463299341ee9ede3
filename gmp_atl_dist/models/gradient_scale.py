"""A tensor whose gradient is multiplied on its way back; the values stay as they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _ScaledGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        return grad_outputs[0] * ctx.factor, None


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """``x``, whose gradient is ``factor`` times what flows into it (fairseq's ``GradMultiply``).

    With ``factor`` 0 everything before ``x`` still gets a gradient, of zeros. Distributed training needs
    one of each parameter.
    """
    if factor == 1.0 or not x.requires_grad:
        return x
    scaled = _ScaledGradient.apply(x, factor)
    assert isinstance(scaled, Tensor)
    return scaled
