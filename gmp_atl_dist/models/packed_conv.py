"""HuBERT's convolutional encoder on a CPU with exact gradients, one clip at a time.

As in ``conv_encoder.py``, a convolution is a few matrix products over rows of time, and the group norm over
time becomes part of the first convolution's weights. The backward pass is such products too. It keeps the
sums before each activation. The first convolution has ten taps only, and its result is half of all values.
So that result is computed again.

Long clips are computed in chunks, so that what is not kept takes little memory.

Shapes: N samples, T frames or time steps, M frames of all clips in one row, C input and O output channels,
K taps, B clips.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import HubertModel

from gmp_atl_dist.audio import num_frames
from gmp_atl_dist.models.packed_conv_layer import (
    ConvLayer,
    ConvShape,
    FirstConv,
    active,
    before_active,
    patches,
)
from gmp_atl_dist.models.padding import normalized_wave

_CHUNK_FRAMES = 256
"""5 s. Shorter chunks fit a cache better, and their products are less efficient."""


def packed_conv(model: HubertModel, waves: Sequence[Tensor]) -> Tensor:
    """(M, C) of all clips: the convolutional encoder with the weights that ``model`` has now.

    Args:
        model: its activation is GELU.
        waves: (N,) of each clip, in the type of the weights.
    """
    if model.config.normalize_waveform:
        waves = [normalized_wave(wave_N) for wave_N in waves]
    layers = [cast(Any, layer) for layer in model.feature_extractor.conv_layers]
    first, *rest = layers
    norm = getattr(first, "layer_norm", None)
    kernel, stride = int(first.conv.kernel_size[0]), int(first.conv.stride[0])
    weight_KC = first.conv.weight[:, 0].t()
    if isinstance(norm, nn.GroupNorm):
        weight_BKC, bias_BC = _folded(weight_KC, norm, waves, stride)
        norm = None
        if first.conv.bias is not None:
            # The norm subtracts it. It gets a gradient of zeros, which distributed training needs.
            bias_BC = bias_BC + 0.0 * first.conv.bias
    else:
        bias = first.conv.bias
        bias_C = weight_KC.new_zeros(weight_KC.shape[1]) if bias is None else bias
        weight_BKC, bias_BC = weight_KC[None], bias_C[None]
    shapes = [ConvShape(kernel, stride, False, _eps(norm))]
    given: list[Tensor] = [weight_BKC, bias_BC, *_parameters(norm)]
    for layer in rest:
        norm = getattr(layer, "layer_norm", None)
        conv = layer.conv
        shapes.append(
            ConvShape(
                int(conv.kernel_size[0]),
                int(conv.stride[0]),
                conv.bias is not None,
                _eps(norm),
            )
        )
        bias = [] if conv.bias is None else [conv.bias]
        given += [conv.weight, *bias, *_parameters(norm)]
    return cast(Tensor, _Encoder.apply(list(waves), shapes, *given))


class _Encoder(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, waves: list[Tensor], shapes: list[ConvShape], *given: Tensor) -> Tensor:
        weight_BKC, bias_BC = given[:2]
        left = iter(given[2:])
        first = FirstConv(shapes[0], weight_BKC, bias_BC, left)
        layers = [ConvLayer(shape, left, gradients=False) for shape in shapes[1:]]
        counts = [num_frames(len(wave)) for wave in waves]
        out_MC = weight_BKC.new_empty(sum(counts), layers[-1].taps[0].shape[1])
        kept: list[Tensor] = []
        row = 0
        for clip, start, stop in _chunks(counts):
            x_TC = active(
                first.forward(waves[clip], clip, start, _rows(layers, stop - start)), first.norm
            )
            for layer in layers:
                y_TO = layer.forward(x_TC)
                kept.append(y_TO)
                x_TC = active(y_TO, layer.norm)
            out_MC[row : row + stop - start] = x_TC
            row += stop - start
        ctx.waves, ctx.shapes, ctx.counts = waves, shapes, counts
        ctx.num_given = len(given)
        ctx.save_for_backward(*given, *kept)
        return out_MC

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Any, ...]:
        (grad_MC,) = grad_outputs
        given = ctx.saved_tensors[: ctx.num_given]
        kept = ctx.saved_tensors[ctx.num_given :]
        weight_BKC, bias_BC = given[:2]
        left = iter(given[2:])
        first = FirstConv(ctx.shapes[0], weight_BKC, bias_BC, left)
        layers = [ConvLayer(shape, left, gradients=True) for shape in ctx.shapes[1:]]
        row = 0
        for i, (clip, start, stop) in enumerate(_chunks(ctx.counts)):
            sums = kept[i * len(layers) : (i + 1) * len(layers)]
            grad = grad_MC[row : row + stop - start]
            row += stop - start
            patches_TK, first_TC = first.again(
                ctx.waves[clip], clip, start, _rows(layers, stop - start)
            )
            for at in reversed(range(len(layers))):
                layer = layers[at]
                grad = before_active(grad, sums[at], layer.norm, layer.sums)
                below, below_norm = (
                    (sums[at - 1], layers[at - 1].norm) if at else (first_TC, first.norm)
                )
                grad = layer.backward(grad, active(below, below_norm))
            grad = before_active(grad, first_TC, first.norm, first.sums)
            first.add(patches_TK, grad, clip)
        gradients = first.gradients()
        for layer in layers:
            gradients += layer.gradients()
        return None, None, *gradients


def _chunks(counts: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(clip, first frame, frame behind the last one)."""
    for clip, total in enumerate(counts):
        for start in range(0, total, _CHUNK_FRAMES):
            yield clip, start, min(total, start + _CHUNK_FRAMES)


def _rows(layers: Sequence[ConvLayer], frames: int) -> int:
    """How many rows of the first convolution ``frames`` frames depend on."""
    rows = frames
    for layer in reversed(layers):
        rows = (rows - 1) * layer.shape.stride + layer.shape.kernel
    return rows


def _eps(norm: object) -> float | None:
    return norm.eps if isinstance(norm, nn.LayerNorm) else None


def _parameters(norm: object) -> list[Tensor]:
    return [norm.weight, norm.bias] if isinstance(norm, nn.LayerNorm) else []


def _folded(
    weight_KC: Tensor, norm: nn.GroupNorm, waves: Sequence[Tensor], stride: int
) -> tuple[Tensor, Tensor]:
    """Weights (B, K, C) and bias (B, C) of the first convolution, with the group norm over time in them.

    Mean and variance of the convolution over time follow from mean and covariance of the wave's patches. A
    bias of the convolution is part of the mean, which the norm subtracts. In float64.
    """
    means: list[Tensor] = []
    covariances: list[Tensor] = []
    for wave_N in waves:
        patches_TK = patches(wave_N, len(weight_KC), stride).double()
        mean_K = patches_TK.mean(0)
        means.append(mean_K)
        covariances.append(
            patches_TK.t() @ patches_TK / len(patches_TK) - torch.outer(mean_K, mean_K)
        )
    mean_BK, covariance_BKK = torch.stack(means), torch.stack(covariances)
    weight = weight_KC.double()
    variance_BC = ((covariance_BKK @ weight) * weight).sum(1).clamp_min(0.0)
    gain_BC = norm.weight.double() * torch.rsqrt(variance_BC + norm.eps)
    bias_BC = norm.bias.double() - (mean_BK @ weight) * gain_BC
    dtype = weight_KC.dtype
    return (weight * gain_BC[:, None]).to(dtype), bias_BC.to(dtype)
