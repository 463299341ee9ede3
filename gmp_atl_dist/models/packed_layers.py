"""HuBERT's projection and encoder over packed clips in training.

A layer is a few large products over the frames of all clips. Only attention and the positional convolution
know where a clip ends. The modules of the model are read, not called, so ZeRO 3, which gathers weights when a
module is called, takes the reference path (``forward_frames``).

Shapes: M frames of all clips in one row, C channels of the convolutional encoder, D hidden, I inner size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import HubertModel


class LayerOps(Protocol):
    """What a CPU and a GPU compute differently. ``place`` is where in the model dropout is, ``p`` its share.

    Attributes:
        uses_random_state: dropout follows torch's random state, which checkpoints of activations then keep.
    """

    uses_random_state: bool

    def positions(self, model: HubertModel, x_MD: Tensor) -> Tensor:
        """(M, D): the positional convolution with its activation."""
        ...

    def attend(self, qkv_MX: Tensor, heads: int, place: int, p: float) -> Tensor:
        """(M, D) from queries, keys and values (M, 3 D), each clip alone."""
        ...

    def feed_forward(self, feed: Any, x_MD: Tensor, place: int, p: float) -> Tensor:
        """(M, D): both products of a layer's feed-forward part, with dropout between them."""
        ...

    def drop(self, x_MD: Tensor, place: int, p: float) -> Tensor:
        """``x_MD`` after dropout."""
        ...

    def add(self, x_MD: Tensor, y_MD: Tensor, place: int, p: float) -> Tensor:
        """``x_MD`` plus ``y_MD`` after dropout."""
        ...


_PROJECTION, _ENCODER, _LAYERS = 0, 1, 2
"""Places of dropout; each layer has four from ``_LAYERS`` on."""


def project(model: HubertModel, x_MC: Tensor, ops: LayerOps) -> Tensor:
    """(M, D): what the encoder reads, from the output of the convolutional encoder."""
    projection = model.feature_projection
    if projection.feat_proj_layer_norm:
        x_MC = projection.layer_norm(x_MC)
    x_MD = projection.projection(x_MC)
    return ops.drop(x_MD, _PROJECTION, _p(projection.dropout))


def encode(
    model: HubertModel,
    x_MD: Tensor,
    ops: LayerOps,
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
    x_MD = x_MD + ops.positions(model, x_MD)
    stable = bool(model.config.do_stable_layer_norm)
    if not stable:
        x_MD = encoder.layer_norm(x_MD)
    x_MD = ops.drop(x_MD, _ENCODER, _p(encoder.dropout))
    hidden = {0: x_MD}
    for i, layer in enumerate(encoder.layers[: max(layers)], start=1):
        call = _stable_layer if stable else _layer
        given = (layer, x_MD, ops, _LAYERS + 4 * i)
        if recompute and torch.is_grad_enabled():
            y_MD = checkpoint(
                call, *given, use_reentrant=False, preserve_rng_state=ops.uses_random_state
            )
        else:
            y_MD = call(*given)
        if i in passed_on:
            taken = torch.zeros((), dtype=torch.bool, device=x_MD.device)
            y_MD = torch.where(taken, y_MD, x_MD)
        hidden[i] = x_MD = cast(Tensor, y_MD)
    if stable and len(encoder.layers) in hidden:
        hidden[len(encoder.layers)] = encoder.layer_norm(x_MD)
    return {i: hidden[i] for i in layers}


def _layer(layer: Any, x_MD: Tensor, ops: LayerOps, place: int) -> Tensor:
    """Norms behind the sums, as in HuBERT-base."""
    context_MD = _attention(layer, x_MD, ops, place)
    x_MD = layer.layer_norm(ops.add(x_MD, context_MD, place + 1, _p(layer.dropout)))
    y_MD = _feed_forward(layer, x_MD, ops, place + 2)
    p = _p(layer.feed_forward.output_dropout)
    return layer.final_layer_norm(ops.add(x_MD, y_MD, place + 3, p))


def _stable_layer(layer: Any, x_MD: Tensor, ops: LayerOps, place: int) -> Tensor:
    """Norms before the sums, as in HuBERT-large."""
    context_MD = _attention(layer, layer.layer_norm(x_MD), ops, place)
    x_MD = ops.add(x_MD, context_MD, place + 1, _p(layer.dropout))
    y_MD = _feed_forward(layer, layer.final_layer_norm(x_MD), ops, place + 2)
    p = _p(layer.feed_forward.output_dropout)
    return ops.add(x_MD, y_MD, place + 3, p)


def _attention(layer: Any, x_MD: Tensor, ops: LayerOps, place: int) -> Tensor:
    attention = layer.attention
    parts = (attention.q_proj, attention.k_proj, attention.v_proj)
    weight, bias = (torch.cat([getattr(x, name) for x in parts]) for name in ("weight", "bias"))
    qkv_MX = F.linear(x_MD, weight, bias)
    p = float(attention.dropout) if attention.training else 0.0
    context_MD = ops.attend(qkv_MX, attention.num_heads, place, p)
    return attention.out_proj(context_MD)


def _feed_forward(layer: Any, x_MD: Tensor, ops: LayerOps, place: int) -> Tensor:
    feed = layer.feed_forward
    return ops.feed_forward(feed, x_MD, place, _p(feed.intermediate_dropout))


def _p(dropout: nn.Dropout) -> float:
    return float(dropout.p) if dropout.training else 0.0
