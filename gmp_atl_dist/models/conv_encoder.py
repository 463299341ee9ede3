"""HuBERT's convolutional encoder as matrix products over rows of time; inference only.

``ConvEncoder`` is for a CPU, one clip at a time; ``slot_conv.py`` is for a GPU, all clips at once.

A convolution without padding, whose input lies in memory as rows (time, channels), is a sum of plain matrix
products. Taps within one stride are neighbours in memory. So ``kernel 3, stride 2`` is one product over rows
of two steps and one over every second step, and nothing is copied. On a CPU it runs at the rate of a large
matrix product, twice that of the library's one-dimensional convolution.

Shapes: N samples, T frames or time steps, C channels, K taps, B clips.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import HubertModel
from transformers.activations import ACT2FN

from gmp_atl_dist.audio import FRAME_HOP_SAMPLES, num_frames
from gmp_atl_dist.models.padding import normalized_wave

Activation: TypeAlias = Callable[[Tensor], Tensor]

_CHUNK_FRAMES = 64
"""1.3 s: the values between two layers stay in a core's second-level cache."""


def activation_in_place(name: str) -> Activation:
    """The activation of a transformers configuration, which overwrites its input where possible."""
    if name == "gelu":
        return torch.ops.aten.gelu_.default
    return ACT2FN[name]


def tap_matrices(weight_OCK: Tensor, stride: int) -> list[Tensor]:
    """One (taps x C, O) matrix for the taps within each stride, which are neighbours in memory."""
    return [
        weight_OCK[:, :, first : first + stride].permute(2, 1, 0).reshape(-1, weight_OCK.shape[0])
        for first in range(0, weight_OCK.shape[2], stride)
    ]


def tap_rows(x_TC: Tensor, group: int, taps: int, stride: int, steps: int) -> Tensor:
    """(steps, taps): the ``taps`` neighbouring values that a group of taps reads at each step; a view."""
    channels = x_TC.shape[1]
    first = x_TC.storage_offset() + group * stride * channels
    return x_TC.as_strided((steps, taps), (stride * channels, 1), first)


def row_conv(
    x_TC: Tensor, weights: Sequence[Tensor], bias_O: Tensor | None, kernel: int, stride: int
) -> Tensor:
    """(T, O): a convolution of rows (T, C) with the matrices of :func:`tap_matrices`."""
    steps = (len(x_TC) - kernel) // stride + 1
    y_TO = x_TC.new_empty(steps, weights[0].shape[1])
    for i, weight in enumerate(weights):
        rows = tap_rows(x_TC, i, len(weight), stride, steps)
        if i:
            y_TO.addmm_(rows, weight)
        elif bias_O is None:
            torch.mm(rows, weight, out=y_TO)
        else:
            torch.addmm(bias_O, rows, weight, out=y_TO)
    return y_TO


class RowConv:
    """A convolution of rows (T, C), its norm over channels if it has one, and its activation."""

    def __init__(self, conv: nn.Conv1d, norm: nn.LayerNorm | None, dtype: torch.dtype) -> None:
        weight_OCK = conv.weight.detach()
        self.kernel, self.stride = int(conv.kernel_size[0]), int(conv.stride[0])
        self._norm = deepcopy(norm)
        self._bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        self._weights = [x.to(dtype).contiguous() for x in tap_matrices(weight_OCK, self.stride)]

    def __call__(self, x_TC: Tensor, activation: Activation) -> Tensor:
        y_TC = row_conv(x_TC, self._weights, self._bias, self.kernel, self.stride)
        if self._norm is not None:
            y_TC = row_norm(y_TC, self._norm)
        return activation(y_TC)


class ConvEncoder:
    """From waves to convolutional features, one clip at a time. No clip affects another.

    It copies the weights. Waves are normalised where ``config.normalize_waveform`` is true. On a CPU each
    clip is computed in tensors of its own size, so its features have the same bits in every batch.

    HuBERT-base normalises its first convolution over time. The mean and variance of the convolution's output
    follow from the mean and the covariance of the wave's patches of ten samples. So they are known before the
    convolution is computed, and the norm becomes part of its weights. The sums are in float64, in which sums
    of products of 16-bit samples are exact, so they do not depend on the batch either.
    """

    def __init__(self, model: HubertModel, dtype: torch.dtype) -> None:
        layers = list(model.feature_extractor.conv_layers)
        first, config = layers[0], model.config
        self._dtype = dtype
        self._normalize = bool(config.normalize_waveform)
        self._channels = int(config.conv_dim[-1])
        self._activation = activation_in_place(config.feat_extract_activation)
        self._kernel, self._stride = int(config.conv_kernel[0]), int(config.conv_stride[0])
        # Few products per sample: full precision costs nothing here.
        conv = cast(nn.Conv1d, first.conv)
        self._weight_KC = conv.weight.detach()[:, 0].t().float().contiguous()
        bias = conv.bias
        self._bias_C = (
            torch.zeros_like(self._weight_KC[0]) if bias is None else bias.detach().float()
        )
        norm = deepcopy(getattr(first, "layer_norm", None))
        self._group_norm = norm if isinstance(norm, nn.GroupNorm) else None
        self._row_norm = norm if isinstance(norm, nn.LayerNorm) else None
        self._rest = [
            RowConv(cast(nn.Conv1d, x.conv), getattr(x, "layer_norm", None), dtype)
            for x in layers[1:]
        ]

    @torch.no_grad()
    def __call__(self, waves: Sequence[Tensor]) -> list[Tensor]:
        """(T, C) of each clip, in the dtype of the weights; ``waves`` are float32 (N,) on the device."""
        if self._normalize:
            waves = [normalized_wave(wave_N) for wave_N in waves]
        counts = [num_frames(len(wave)) for wave in waves]
        out = [waves[0].new_empty(n, self._channels, dtype=self._dtype) for n in counts]
        weights = self._first_weights(waves)
        for clip, total in enumerate(counts):
            for start in range(0, total, _CHUNK_FRAMES):
                stop = min(total, start + _CHUNK_FRAMES)
                x_TC = self._first(waves[clip], start, stop, *weights[clip])
                for layer in self._rest:
                    x_TC = layer(x_TC, self._activation)
                out[clip][start:stop] = x_TC
        return out

    def _rows(self, frames: int) -> int:
        """Number of rows of the first convolution that ``frames`` frames depend on."""
        rows = frames
        for layer in reversed(self._rest):
            rows = (rows - 1) * layer.stride + layer.kernel
        return rows

    def _first(
        self, wave_N: Tensor, start: int, stop: int, weight_KC: Tensor, bias_C: Tensor
    ) -> Tensor:
        """The first convolution that frames ``start`` to ``stop`` depend on."""
        patches_TK = self._patches(wave_N[start * FRAME_HOP_SAMPLES :])[: self._rows(stop - start)]
        x_TC = torch.addmm(bias_C, patches_TK.contiguous(), weight_KC)
        if self._row_norm is not None:
            x_TC = row_norm(x_TC, self._row_norm)
        return self._activation(x_TC).to(self._dtype)

    def _patches(self, wave_N: Tensor) -> Tensor:
        """(T, K): the samples that each step of the first convolution sees; a view."""
        steps = (len(wave_N) - self._kernel) // self._stride + 1
        return wave_N.as_strided((steps, self._kernel), (self._stride, 1), wave_N.storage_offset())

    def _first_weights(self, waves: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Weight (K, C) and bias (C,) of the first convolution for each clip, group norm included."""
        norm = self._group_norm
        if norm is None:
            return [(self._weight_KC, self._bias_C)] * len(waves)
        # A bias of the convolution is part of the mean, which the norm subtracts.
        weight_KC = self._weight_KC.double()
        scale_C, shift_C = norm.weight.detach().double(), norm.bias.detach().double()
        folded: list[tuple[Tensor, Tensor]] = []
        for wave_N in waves:
            patches_TK = self._patches(wave_N).double()
            mean_K = patches_TK.mean(0)
            covariance_KK = patches_TK.t() @ patches_TK / len(patches_TK) - mean_K[:, None] * mean_K
            variance_C = (weight_KC * (covariance_KK @ weight_KC)).sum(0).clamp_min(0.0)
            gain_C = scale_C / torch.sqrt(variance_C + norm.eps)
            bias = shift_C - (mean_K @ weight_KC) * gain_C
            folded.append(((weight_KC * gain_C).float(), bias.float()))
        return folded


def row_norm(x_TD: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Layer norm over the last dimension in float32, returned in the input's dtype."""
    y_TD = F.layer_norm(x_TD.float(), norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    return y_TD.to(x_TD.dtype)
