"""Attention of packed clips on a CPU, each clip alone, with exact gradients.

The scores of a clip of up to eight seconds are kept for the backward pass. Those of longer clips would take
the square of their length, so they are computed again, some heads at a time.

Shapes: M rows of all clips, T frames of a clip, D hidden, H heads, W width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gmp_atl_dist.models.keyed_dropout import kept_pieces, scale_of
from gmp_atl_dist.models.packing import Packing

_MOST_KEPT_FRAMES = 400
_MOST_SCORES = 1 << 22
"""Scores in memory at once, 16 MB."""


@dataclass(frozen=True)
class ScoreDropout:
    """Dropout of attention weights: the place in the model, and the probability."""

    place: int
    p: float


def attend(qkv_MX: Tensor, packing: Packing, heads: int, dropout: ScoreDropout) -> Tensor:
    """(M, D) from queries, keys and values (M, 3 D)."""
    return _Attention.apply(qkv_MX, packing, heads, dropout)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv_MX: Tensor, packing: Packing, heads: int, dropout: ScoreDropout
    ) -> Tensor:
        ctx.packing, ctx.heads, ctx.dropout = packing, heads, dropout
        context_MD = qkv_MX.new_empty(len(qkv_MX), qkv_MX.shape[1] // 3)
        kept: list[Tensor] = []
        ctx.kept_of: dict[int, int] = {}
        for clip, rows in enumerate(packing.rows):
            q, k, v = _by_head(qkv_MX[rows], heads)
            out_THW = context_MD[rows].view(len(context_MD[rows]), heads, -1)
            keep = rows.stop - rows.start <= _MOST_KEPT_FRAMES
            if keep:
                ctx.kept_of[clip] = len(kept)
            for some, mask in _masks(packing, clip, heads, dropout):
                weight_HTT = _weights(q[some], k[some])
                if keep:
                    kept += [weight_HTT] if mask is None else [weight_HTT, mask]
                applied = _applied(weight_HTT, mask)
                y_HTW = torch.bmm(applied, v[some])
                if mask is not None:
                    y_HTW.mul_(scale_of(dropout.p))
                out_THW[:, some].copy_(y_HTW.transpose(0, 1))
        ctx.save_for_backward(qkv_MX, *kept)
        return context_MD

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad_MD,) = grad_outputs
        qkv_MX, *kept = ctx.saved_tensors
        packing, heads, dropout = ctx.packing, ctx.heads, ctx.dropout
        out_MX = torch.empty_like(qkv_MX)
        for clip, rows in enumerate(packing.rows):
            count = rows.stop - rows.start
            q, k, v = _by_head(qkv_MX[rows], heads)
            dq, dk, dv = _by_head(out_MX[rows], heads)
            dy = grad_MD[rows].view(count, heads, -1).transpose(0, 1)
            groups = _groups(heads, count)
            if clip in ctx.kept_of:
                each = 1 if dropout.p == 0.0 else 2
                at = ctx.kept_of[clip]
                found = (
                    (some, kept[at + each * i], kept[at + each * i + 1] if each == 2 else None)
                    for i, some in enumerate(groups)
                )
            else:
                found = (
                    (some, _weights(q[some], k[some]), mask)
                    for some, mask in _masks(packing, clip, heads, dropout)
                )
            for some, weight_HTT, mask in found:
                dy_some = dy[some] if mask is None else dy[some] * scale_of(dropout.p)
                dv[some].copy_(torch.bmm(_applied(weight_HTT, mask).transpose(1, 2), dy_some))
                dw_HTT = torch.bmm(dy_some, v[some].transpose(1, 2))
                if mask is not None:
                    dw_HTT.mul_(mask.to(dw_HTT.dtype))
                ds_HTT = torch.ops.aten._softmax_backward_data(
                    dw_HTT, weight_HTT, -1, dw_HTT.dtype
                )
                scale = q.shape[-1] ** -0.5
                dq[some].copy_(torch.bmm(ds_HTT, k[some])).mul_(scale)
                dk[some].copy_(torch.bmm(ds_HTT.transpose(1, 2), q[some])).mul_(scale)
        return out_MX, None, None, None


def _by_head(qkv_TX: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Views (H, T, W) of queries, keys and values."""
    q, k, v = qkv_TX.view(len(qkv_TX), 3, heads, -1).permute(1, 2, 0, 3)
    return q, k, v


def _weights(q_HTW: Tensor, k_HTW: Tensor) -> Tensor:
    return torch.bmm(q_HTW * q_HTW.shape[-1] ** -0.5, k_HTW.transpose(1, 2)).softmax(-1)


def _applied(weight_HTT: Tensor, mask: Tensor | None) -> Tensor:
    return weight_HTT if mask is None else mask.to(weight_HTT.dtype).mul_(weight_HTT)


def _groups(heads: int, count: int) -> list[slice]:
    """Heads that are computed together."""
    together = max(1, min(heads, _MOST_SCORES // count**2))
    return [slice(i, min(heads, i + together)) for i in range(0, heads, together)]


def _masks(
    packing: Packing, clip: int, heads: int, dropout: ScoreDropout
) -> Iterator[tuple[slice, Tensor | None]]:
    """Groups of heads, and uint8 (H, T, T) of each: 0 on what is dropped."""
    count = packing.num_frames[clip]
    groups = _groups(heads, count)
    if dropout.p == 0.0:
        yield from ((some, None) for some in groups)
        return
    sizes = [(some.stop - some.start) * count**2 for some in groups]
    pieces = kept_pieces(packing.seeds[clip], dropout.place, sizes, dropout.p)
    for some, kept in zip(groups, pieces, strict=True):
        yield some, torch.from_numpy(kept.view("uint8")).view(-1, count, count)
