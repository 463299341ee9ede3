"""Attention of packed clips on a CPU, each clip alone, with exact gradients.

The weights of a clip of up to eight seconds are kept for the backward pass. Those of longer clips would take
the square of their length, so they are computed again, some heads at a time.

Shapes: M rows of all clips, T frames of a clip, D hidden, H heads, W width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from gmp_atl_dist.models.keyed_dropout import kept_pieces, scale_of
from gmp_atl_dist.models.packing import Packing

_MOST_KEPT_FRAMES = 400
_MOST_WEIGHTS = 1 << 22
"""In memory at once, 16 MB."""


@dataclass(frozen=True)
class WeightDropout:
    """Dropout of attention weights: the place in the model, and the probability."""

    place: int
    p: float


def attend(qkv_MX: Tensor, packing: Packing, heads: int, dropout: WeightDropout) -> Tensor:
    """(M, D) from queries, keys and values (M, 3 D)."""
    return cast(Tensor, _Attention.apply(qkv_MX, packing, heads, dropout))


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv_MX: Tensor, packing: Packing, heads: int, dropout: WeightDropout
    ) -> Tensor:
        context_MD = qkv_MX.new_empty(len(qkv_MX), qkv_MX.shape[1] // 3)
        kept: list[Tensor | None] = []
        for clip, rows in enumerate(packing.rows):
            q, k, v = _by_head(qkv_MX[rows], heads)
            (out_HTW,) = _by_head(context_MD[rows], heads, 1)
            for some, kept_HTT in _masks(packing, clip, heads, dropout):
                weight_HTT = _weights(q[some], k[some])
                if _keeps(packing, clip):
                    kept += [weight_HTT, kept_HTT]
                y_HTW = torch.bmm(_applied(weight_HTT, kept_HTT), v[some])
                torch.mul(y_HTW, scale_of(dropout.p), out=out_HTW[some])
        ctx.packing, ctx.heads, ctx.dropout = packing, heads, dropout
        ctx.save_for_backward(qkv_MX, *kept)
        return context_MD

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad_MD,) = grad_outputs
        qkv_MX, *kept = ctx.saved_tensors
        packing, heads, dropout = ctx.packing, ctx.heads, ctx.dropout
        left = iter(kept)
        out_MX = torch.empty_like(qkv_MX)
        for clip, rows in enumerate(packing.rows):
            q, k, v = _by_head(qkv_MX[rows], heads)
            dq, dk, dv = _by_head(out_MX[rows], heads)
            (grad_HTW,) = _by_head(grad_MD[rows], heads, 1)
            if _keeps(packing, clip):
                groups = _groups(heads, packing.num_frames[clip])
                found = ((some, next(left), next(left)) for some in groups)
            else:
                found = (
                    (some, _weights(q[some], k[some]), kept_HTT)
                    for some, kept_HTT in _masks(packing, clip, heads, dropout)
                )
            for some, weight_HTT, kept_HTT in found:
                dy_HTW = grad_HTW[some] * scale_of(dropout.p)
                dv[some] = torch.bmm(_applied(weight_HTT, kept_HTT).transpose(1, 2), dy_HTW)
                dweight_HTT = torch.bmm(dy_HTW, v[some].transpose(1, 2))
                dweight_HTT = _applied(dweight_HTT, kept_HTT)
                dscore_HTT = torch.ops.aten._softmax_backward_data(
                    dweight_HTT, weight_HTT, -1, dweight_HTT.dtype
                )
                root = q.shape[-1] ** -0.5
                torch.mul(torch.bmm(dscore_HTT, k[some]), root, out=dq[some])
                torch.mul(torch.bmm(dscore_HTT.transpose(1, 2), q[some]), root, out=dk[some])
        return out_MX, None, None, None


def _by_head(x_TX: Tensor, heads: int, parts: int = 3) -> tuple[Tensor, ...]:
    """Views (H, T, W) of the parts that lie side by side, such as queries, keys and values."""
    return x_TX.view(len(x_TX), parts, heads, -1).permute(1, 2, 0, 3).unbind()


def _weights(q_HTW: Tensor, k_HTW: Tensor) -> Tensor:
    return torch.bmm(q_HTW * q_HTW.shape[-1] ** -0.5, k_HTW.transpose(1, 2)).softmax(-1)


def _applied(weight_HTT: Tensor, kept_HTT: Tensor | None) -> Tensor:
    return weight_HTT if kept_HTT is None else kept_HTT.to(weight_HTT.dtype).mul_(weight_HTT)


def _keeps(packing: Packing, clip: int) -> bool:
    return packing.num_frames[clip] <= _MOST_KEPT_FRAMES


def _groups(heads: int, count: int) -> list[slice]:
    """Heads that are computed together."""
    together = max(1, min(heads, _MOST_WEIGHTS // count**2))
    return [slice(i, min(heads, i + together)) for i in range(0, heads, together)]


def _masks(
    packing: Packing, clip: int, heads: int, dropout: WeightDropout
) -> Iterator[tuple[slice, Tensor | None]]:
    """Groups of heads, and uint8 (H, T, T) of each: 0 on what is dropped. None: nothing is."""
    count = packing.num_frames[clip]
    groups = _groups(heads, count)
    if dropout.p == 0.0:
        yield from ((some, None) for some in groups)
        return
    sizes = [(some.stop - some.start) * count**2 for some in groups]
    pieces = kept_pieces(packing.seeds[clip], dropout.place, sizes, dropout.p)
    for some, kept in zip(groups, pieces, strict=True):
        yield some, torch.from_numpy(kept.view(np.uint8)).view(-1, count, count)
