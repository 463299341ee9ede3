"""What training computes on a CPU: each clip alone where a clip matters, dropout by the clip's seed.

Shapes: M frames of all clips in one row, D hidden, I inner size.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import HubertModel

from gmp_atl_dist.models.keyed_dropout import add_dropped, dropped, kept_rows, scale_of
from gmp_atl_dist.models.packed_positional import packed_positions
from gmp_atl_dist.models.packed_scores import WeightDropout, attend
from gmp_atl_dist.models.packing import Packing


class ClipOps:
    """The ``LayerOps`` of a CPU."""

    uses_random_state = False

    def __init__(self, packing: Packing) -> None:
        self._packing = packing

    def positions(self, model: HubertModel, x_MD: Tensor) -> Tensor:
        return packed_positions(model, x_MD, self._packing.num_frames)

    def attend(self, qkv_MX: Tensor, heads: int, place: int, p: float) -> Tensor:
        return attend(qkv_MX, self._packing, heads, WeightDropout(place, p))

    def feed_forward(self, feed: Any, x_MD: Tensor, place: int, p: float) -> Tensor:
        inner, outer = feed.intermediate_dense, feed.output_dense
        weights = inner.weight, inner.bias, outer.weight, outer.bias
        kept_MI = None if p == 0.0 else kept_rows(self._packing, place, inner.out_features, p)
        return cast(Tensor, _FeedForward.apply(x_MD, *weights, kept_MI, scale_of(p)))

    def drop(self, x_MD: Tensor, place: int, p: float) -> Tensor:
        return dropped(x_MD, self._packing, place, p)

    def add(self, x_MD: Tensor, y_MD: Tensor, place: int, p: float) -> Tensor:
        return add_dropped(x_MD, y_MD, self._packing, place, p)


class _FeedForward(torch.autograd.Function):
    """Keeps the sums before the activation only, and computes the activation again."""

    @staticmethod
    def forward(
        ctx: Any,
        x_MD: Tensor,
        inner_ID: Tensor,
        inner_bias_I: Tensor,
        outer_DI: Tensor,
        outer_bias_D: Tensor,
        kept_MI: Tensor | None,
        scale: float,
    ) -> Tensor:
        sums_MI = torch.addmm(inner_bias_I, x_MD, inner_ID.t())
        ctx.save_for_backward(x_MD, inner_ID, outer_DI, sums_MI, kept_MI)
        ctx.scale = scale
        return torch.addmm(outer_bias_D, _activated(sums_MI, kept_MI, scale), outer_DI.t())

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad_MD,) = grad_outputs
        x_MD, inner_ID, outer_DI, sums_MI, kept_MI = ctx.saved_tensors
        outer_grad = grad_MD.t() @ _activated(sums_MI, kept_MI, ctx.scale)
        grad_MI = grad_MD @ outer_DI
        if kept_MI is not None:
            grad_MI.mul_(kept_MI.to(grad_MI.dtype).mul_(ctx.scale))
        grad_MI = torch.ops.aten.gelu_backward(grad_MI, sums_MI)
        return (
            grad_MI @ inner_ID,
            grad_MI.t() @ x_MD,
            grad_MI.sum(0),
            outer_grad,
            grad_MD.sum(0),
            None,
            None,
        )


def _activated(sums_MI: Tensor, kept_MI: Tensor | None, scale: float) -> Tensor:
    active_MI = F.gelu(sums_MI)
    if kept_MI is not None:
        active_MI.mul_(kept_MI.to(active_MI.dtype).mul_(scale))
    return active_MI
