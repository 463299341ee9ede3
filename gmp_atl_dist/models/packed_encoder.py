"""HuBERT's projection and encoder over packed rows of any clips; inference only.

Everything but attention works on one frame at a time, so clips of any lengths share one large product. How
attention sees the rows is the caller's choice (``packed_attention.py``).

Precision: products are in the given type, and residual sums and norms in float32.

Shapes: M frames of all clips in one row, C channels of the convolutional encoder, D hidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from transformers import HubertModel
from transformers.models.hubert.modeling_hubert import HubertEncoderLayer

from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.models.backbone_config import check_layers
from gmp_atl_dist.models.conv_encoder import activation_in_place, row_norm
from gmp_atl_dist.models.packed_attention import Attention
from gmp_atl_dist.models.row_padding import pad_few_rows


class _Product:
    """``x @ weight + bias``, with the weights of one or more linear layers side by side."""

    def __init__(self, dtype: torch.dtype, *layers: nn.Linear) -> None:
        self._weight_IO = torch.cat([x.weight.detach() for x in layers]).to(dtype).t()
        self._bias_O = torch.cat([x.bias.detach() for x in layers]).to(dtype)

    def __call__(self, x_MI: Tensor) -> Tensor:
        rows = pad_few_rows(x_MI.to(self._bias_O.dtype))
        return torch.addmm(self._bias_O, rows, self._weight_IO)[: len(x_MI)]


@dataclass(frozen=True)
class _Layer:
    qkv: _Product
    out: _Product
    inner: _Product
    outer: _Product
    norm: nn.LayerNorm
    final_norm: nn.LayerNorm


class PackedEncoder:
    """From convolutional features to hidden states of chosen layers.

    Args:
        model: in ``eval()`` on the device that is to be used. Its weights are copied.
        layers: 0 to the number of layers, as in :class:`gmp_atl_dist.models.backbone.FrameOutput`. Layers
            above the highest of them are not computed.
        dtype: of the products.
        feed_forward_rows: rows of the feed-forward layer that are computed at a time; None: all.

    Raises:
        ModelError: a layer does not exist, or the model has attention adapters.
    """

    def __init__(
        self,
        model: HubertModel,
        layers: Sequence[int],
        dtype: torch.dtype,
        feed_forward_rows: int | None = None,
    ) -> None:
        check_layers(model.config, layers)
        config = model.config
        if getattr(config, "adapter_attn_dim", None) is not None:
            raise ModelError("the model has attention adapters; merge them or use one without")
        self.layers = tuple(sorted(set(layers)))
        self._feed_forward_rows = feed_forward_rows
        self._stable = bool(config.do_stable_layer_norm)
        self._heads = int(config.num_attention_heads)
        self._activation = activation_in_place(config.hidden_act)
        projection = model.feature_projection
        self._projection_norm = projection.layer_norm if projection.feat_proj_layer_norm else None
        self._projection = _Product(dtype, projection.projection)
        self._norm = cast(nn.LayerNorm, model.encoder.layer_norm)
        self._last = len(model.encoder.layers)
        self._encoder = [
            _layer(cast(HubertEncoderLayer, x), dtype)
            for x in model.encoder.layers[: self.layers[-1]]
        ]

    def project(self, x_MC: Tensor) -> Tensor:
        """float32 (M, D): what the positional convolution reads."""
        if self._projection_norm is not None:
            x_MC = row_norm(x_MC, self._projection_norm)
        return self._projection(x_MC).float()

    def add_positions(self, x_MD: Tensor, positions_MD: Tensor) -> Tensor:
        """The input of the first layer."""
        x_MD = x_MD + positions_MD
        return x_MD if self._stable else row_norm(x_MD, self._norm)

    def encode(self, x_MD: Tensor, attention: Attention) -> Iterator[tuple[int, Tensor]]:
        """(layer, its output) for the wanted layers, in order, as float32 (M, D)."""
        if 0 in self.layers:
            yield 0, x_MD
        for i, layer in enumerate(self._encoder, start=1):
            if self._stable:
                x_MD = x_MD + self._attend(layer, row_norm(x_MD, layer.norm), attention)
                x_MD = x_MD + self._feed_forward(layer, row_norm(x_MD, layer.final_norm))
            else:
                x_MD = row_norm(x_MD + self._attend(layer, x_MD, attention), layer.norm)
                x_MD = row_norm(x_MD + self._feed_forward(layer, x_MD), layer.final_norm)
            if i in self.layers:
                # As in forward_frames: a reader of the last layer needs it normalised.
                normed = self._stable and i == self._last
                yield i, row_norm(x_MD, self._norm) if normed else x_MD

    def _attend(self, layer: _Layer, x_MD: Tensor, attention: Attention) -> Tensor:
        return layer.out(attention(layer.qkv(x_MD), self._heads))

    def _feed_forward(self, layer: _Layer, x_MD: Tensor) -> Tensor:
        if self._feed_forward_rows is None:
            return layer.outer(self._activation(layer.inner(x_MD)))
        y_MD = torch.empty_like(x_MD)
        pieces = x_MD.split(self._feed_forward_rows), y_MD.split(self._feed_forward_rows)
        for rows, out in zip(*pieces, strict=True):
            out.copy_(layer.outer(self._activation(layer.inner(rows))))
        return y_MD


def _layer(layer: HubertEncoderLayer, dtype: torch.dtype) -> _Layer:
    attention, feed = layer.attention, layer.feed_forward
    return _Layer(
        _Product(dtype, attention.q_proj, attention.k_proj, attention.v_proj),
        _Product(dtype, attention.out_proj),
        _Product(dtype, feed.intermediate_dense),
        _Product(dtype, feed.output_dense),
        layer.layer_norm,
        layer.final_layer_norm,
    )
