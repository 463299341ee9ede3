"""HuBERT's projection and encoder over packed clips in training.

A layer is a few large products over the frames of all clips. Only attention and the positional convolution
know where a clip ends. The modules of the model are read, not called, so ZeRO 3, which gathers weights when a
module is called, takes the reference path (``forward_frames``).

Shapes: M frames of all clips in one row, C channels of the convolutional encoder, D hidden, I inner size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import HubertModel

from gmp_atl_dist.models.keyed_dropout import add_dropped, dropped, kept_rows, scale_of
from gmp_atl_dist.models.packed_positional import packed_positions
from gmp_atl_dist.models.packed_scores import WeightDropout, attend
from gmp_atl_dist.models.packing import Packing

_PROJECTION, _ENCODER, _LAYERS = 0, 1, 2
"""Places of dropout; each layer has four from ``_LAYERS`` on."""


def project(model: HubertModel, x_MC: Tensor, packing: Packing) -> Tensor:
    """(M, D): what the encoder reads, from the output of the convolutional encoder."""
    projection = model.feature_projection
    if projection.feat_proj_layer_norm:
        x_MC = projection.layer_norm(x_MC)
    x_MD = projection.projection(x_MC)
    return dropped(x_MD, packing, _PROJECTION, _p(projection.dropout))


def encode(
    model: HubertModel,
    x_MD: Tensor,
    packing: Packing,
    layers: Sequence[int],
    passed_on: frozenset[int],
    *,
    recompute: bool,
) -> dict[int, Tensor]:
    """(M, D) of each wanted layer; no layer above them is computed.

    Args:
        passed_on: layers, from 1, whose result is not taken. Their parameters get a gradient of zeros.
        recompute: keep the input of each layer only, and compute the layer again in the backward pass.
    """
    encoder = model.encoder
    x_MD = x_MD + packed_positions(model, x_MD, packing.num_frames)
    stable = bool(model.config.do_stable_layer_norm)
    if not stable:
        x_MD = encoder.layer_norm(x_MD)
    x_MD = dropped(x_MD, packing, _ENCODER, _p(encoder.dropout))
    hidden = {0: x_MD}
    for i, layer in enumerate(encoder.layers[: max(layers)], start=1):
        call = _stable_layer if stable else _layer
        given = (layer, x_MD, packing, _LAYERS + 4 * i)
        if recompute and torch.is_grad_enabled():
            y_MD = checkpoint(call, *given, use_reentrant=False, preserve_rng_state=False)
        else:
            y_MD = call(*given)
        if i in passed_on:
            taken = torch.zeros((), dtype=torch.bool, device=x_MD.device)
            y_MD = torch.where(taken, y_MD, x_MD)
        hidden[i] = x_MD = cast(Tensor, y_MD)
    if stable and len(encoder.layers) in hidden:
        hidden[len(encoder.layers)] = encoder.layer_norm(x_MD)
    return {i: hidden[i] for i in layers}


def _layer(layer: Any, x_MD: Tensor, packing: Packing, place: int) -> Tensor:
    """Norms behind the sums, as in HuBERT-base."""
    context_MD = _attention(layer, x_MD, packing, place)
    x_MD = layer.layer_norm(add_dropped(x_MD, context_MD, packing, place + 1, _p(layer.dropout)))
    y_MD = _feed_forward(layer, x_MD, packing, place + 2)
    p = _p(layer.feed_forward.output_dropout)
    return layer.final_layer_norm(add_dropped(x_MD, y_MD, packing, place + 3, p))


def _stable_layer(layer: Any, x_MD: Tensor, packing: Packing, place: int) -> Tensor:
    """Norms before the sums, as in HuBERT-large."""
    context_MD = _attention(layer, layer.layer_norm(x_MD), packing, place)
    x_MD = add_dropped(x_MD, context_MD, packing, place + 1, _p(layer.dropout))
    y_MD = _feed_forward(layer, layer.final_layer_norm(x_MD), packing, place + 2)
    p = _p(layer.feed_forward.output_dropout)
    return add_dropped(x_MD, y_MD, packing, place + 3, p)


def _attention(layer: Any, x_MD: Tensor, packing: Packing, place: int) -> Tensor:
    attention = layer.attention
    parts = (attention.q_proj, attention.k_proj, attention.v_proj)
    weight, bias = (torch.cat([getattr(x, name) for x in parts]) for name in ("weight", "bias"))
    qkv_MX = F.linear(x_MD, weight, bias)
    p = float(attention.dropout) if attention.training else 0.0
    context_MD = attend(qkv_MX, packing, attention.num_heads, WeightDropout(place, p))
    return attention.out_proj(context_MD)


def _feed_forward(layer: Any, x_MD: Tensor, packing: Packing, place: int) -> Tensor:
    feed = layer.feed_forward
    inner, outer = feed.intermediate_dense, feed.output_dense
    p = _p(feed.intermediate_dropout)
    kept_MI = None if p == 0.0 else kept_rows(packing, place, inner.out_features, p)
    return cast(
        Tensor,
        _FeedForward.apply(
            x_MD, inner.weight, inner.bias, outer.weight, outer.bias, kept_MI, scale_of(p)
        ),
    )


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


def _p(dropout: nn.Dropout) -> float:
    return float(dropout.p) if dropout.training else 0.0
