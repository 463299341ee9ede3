"""HuBERT's frame features without padding: clips are packed one after another; inference only.

It computes the same function as ``forward_frames`` without masks, to rounding (1e-5), at the rate of the
machine's matrix products. Everything but attention and the positional convolution works on one frame at a
time. So clips of any lengths share one large product, and no padding is computed. On a CPU with MKL's strict
reproducibility (``device.pin_threads``) a clip's features have the same bits in every batch.

Precision: on a GPU with bfloat16, products are in bfloat16, and residual sums, norms and the softmax in
float32. On a CPU everything is in float32.

Shapes: M frames of all clips in one row, T frames, D hidden, C channels, H heads, B windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import HubertModel
from transformers.models.hubert.modeling_hubert import HubertEncoderLayer

from gmp_atl_dist.device import on_gpu, use_bf16
from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.models.backbone import check_layers
from gmp_atl_dist.models.conv_encoder import ConvEncoder, activation_in_place, row_norm
from gmp_atl_dist.models.positional import PositionalConv
from gmp_atl_dist.models.row_padding import pad_few_rows
from gmp_atl_dist.models.windows import Window, windows

_FFN_ROWS = 512
"""Rows of the feed-forward layer that a CPU computes at a time, so that they stay in its cache."""


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


class PackedHubert:
    """Hidden states of chosen layers. Layers above the highest of them are not computed.

    Args:
        model: in ``eval()`` on the device that is to be used. Its weights are copied.
        layers: 0 to the number of layers, as in :class:`gmp_atl_dist.models.backbone.FrameOutput`.
        window_frames: attention sees longer clips in overlapping windows. Everything below attention sees the
            whole clip, so the number and the alignment of frames are those of one pass.
        context_frames: frames on either side of the part of a window that is kept.

    Raises:
        ModelError: a layer does not exist, or the model has attention adapters.
    """

    def __init__(
        self, model: HubertModel, layers: Sequence[int], *, window_frames: int, context_frames: int
    ) -> None:
        check_layers(model.config, layers)
        config = model.config
        if getattr(config, "adapter_attn_dim", None) is not None:
            raise ModelError("the model has attention adapters; merge them or use one without")
        dtype = torch.bfloat16 if use_bf16() else torch.float32
        self._layers = tuple(sorted(set(layers)))
        self._window_frames, self._context_frames = window_frames, context_frames
        self._stable = bool(config.do_stable_layer_norm)
        self._heads = int(config.num_attention_heads)
        self._activation = activation_in_place(config.hidden_act)
        self._conv = ConvEncoder(model, dtype)
        self._position = PositionalConv(model)
        projection = model.feature_projection
        self._projection_norm = projection.layer_norm if projection.feat_proj_layer_norm else None
        self._projection = _Product(dtype, projection.projection)
        self._norm = cast(nn.LayerNorm, model.encoder.layer_norm)
        self._last = len(model.encoder.layers)
        self._encoder = [
            _layer(cast(HubertEncoderLayer, x), dtype)
            for x in model.encoder.layers[: self._layers[-1]]
        ]

    @torch.inference_mode()
    def __call__(self, waves: Sequence[Tensor], most_frames: int) -> list[dict[int, Tensor]]:
        """float32 (T, D) by layer for each clip.

        Args:
            waves: float32 (N,) each, 16 kHz mono in [-1, 1), on the device.
            most_frames: in one forward pass of the encoder; a single window may be longer.
        """
        x_MD, counts = self._embed(waves)
        jobs = [
            (clip, window)
            for clip, count in enumerate(counts)
            for window in windows(count, self._window_frames, self._context_frames)
        ]
        firsts = [sum(counts[:clip]) for clip in range(len(counts))]
        kept: list[dict[int, list[Tensor]]] = [{i: [] for i in self._layers} for _ in counts]
        for batch in _batches(jobs, most_frames):
            rows = [x_MD[firsts[c] + w.start : firsts[c] + w.stop] for c, w in batch]
            packed = rows[0] if len(rows) == 1 else torch.cat(rows)
            lengths = [w.stop - w.start for _, w in batch]
            for layer, y_MD in self._encode(packed, lengths):
                for (clip, w), y_TD in zip(batch, y_MD.split(lengths), strict=True):
                    kept_TD = y_TD[w.keep_start - w.start : w.keep_stop - w.start]
                    kept[clip][layer].append(kept_TD)
        return [
            {
                layer: parts[0] if len(parts) == 1 else torch.cat(parts)
                for layer, parts in by.items()
            }
            for by in kept
        ]

    def _embed(self, waves: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
        """The input of the encoder's first layer, packed, and the number of frames of each clip."""
        features = self._conv(waves)
        counts = [len(x) for x in features]
        x_MC = torch.cat(features)
        if self._projection_norm is not None:
            x_MC = row_norm(x_MC, self._projection_norm)
        x_MD = self._projection(x_MC).float()
        x_MD = x_MD + self._position(x_MD, counts)
        return (x_MD if self._stable else row_norm(x_MD, self._norm)), counts

    def _encode(self, x_MD: Tensor, lengths: list[int]) -> Iterator[tuple[int, Tensor]]:
        """(layer, its output) for the wanted layers, in order."""
        padded = _Padded(lengths, x_MD.device) if on_gpu(x_MD) else None
        if 0 in self._layers:
            yield 0, x_MD
        for i, layer in enumerate(self._encoder, start=1):
            if self._stable:
                x_MD = x_MD + self._attend(layer, row_norm(x_MD, layer.norm), lengths, padded)
                x_MD = x_MD + self._feed_forward(layer, row_norm(x_MD, layer.final_norm))
            else:
                x_MD = row_norm(x_MD + self._attend(layer, x_MD, lengths, padded), layer.norm)
                x_MD = row_norm(x_MD + self._feed_forward(layer, x_MD), layer.final_norm)
            if i in self._layers:
                # As in forward_frames: a reader of the last layer needs it normalised.
                normed = self._stable and i == self._last
                yield i, row_norm(x_MD, self._norm) if normed else x_MD

    def _attend(
        self, layer: _Layer, x_MD: Tensor, lengths: list[int], padded: _Padded | None
    ) -> Tensor:
        qkv = layer.qkv(x_MD)
        if padded is not None:
            return layer.out(padded.attend(qkv, self._heads))
        context_MD = torch.empty_like(x_MD, dtype=qkv.dtype)
        first = 0
        for count in lengths:
            rows = slice(first, first + count)
            q, k, v = qkv[rows].view(count, 3, self._heads, -1).permute(1, 2, 0, 3)[:, None]
            attended = F.scaled_dot_product_attention(q, k, v)[0]
            context_MD[rows].view(count, self._heads, -1).copy_(attended.transpose(0, 1))
            first += count
        return layer.out(context_MD)

    def _feed_forward(self, layer: _Layer, x_MD: Tensor) -> Tensor:
        if on_gpu(x_MD):
            return layer.outer(self._activation(layer.inner(x_MD)))
        y_MD = torch.empty_like(x_MD)
        for rows, out in zip(x_MD.split(_FFN_ROWS), y_MD.split(_FFN_ROWS), strict=True):
            out.copy_(layer.outer(self._activation(layer.inner(rows))))
        return y_MD


class _Padded:
    """Attention of many windows in one call, for a GPU, where one call per window would cost more."""

    def __init__(self, lengths: list[int], device: torch.device) -> None:
        self._shape = (len(lengths), max(lengths))
        steps_T = torch.arange(max(lengths), device=device)
        self._valid_BT = steps_T < torch.tensor(lengths, device=device)[:, None]
        self._rows_M = self._valid_BT.flatten().nonzero()[:, 0]

    def attend(self, qkv: Tensor, heads: int) -> Tensor:
        """(M, D) from (M, 3 D)."""
        batch, steps = self._shape
        padded = qkv.new_zeros(batch * steps, qkv.shape[1]).index_copy_(0, self._rows_M, qkv)
        q, k, v = padded.view(batch, steps, 3, heads, -1).permute(2, 0, 3, 1, 4)
        full = bool(len(self._rows_M) == batch * steps)
        mask = None if full else self._valid_BT[:, None, None]
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return attended.transpose(1, 2).reshape(batch * steps, -1)[self._rows_M]


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


def _batches(
    jobs: list[tuple[int, Window]], most_frames: int
) -> Iterator[list[tuple[int, Window]]]:
    """Windows in order, as many per batch as fit."""
    batch: list[tuple[int, Window]] = []
    held = 0
    for job in jobs:
        frames = job[1].stop - job[1].start
        if batch and held + frames > most_frames:
            yield batch
            batch, held = [], 0
        batch.append(job)
        held += frames
    if batch:
        yield batch
