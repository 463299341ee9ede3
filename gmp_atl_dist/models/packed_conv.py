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
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import HubertModel

from gmp_atl_dist.audio import FRAME_HOP_SAMPLES, num_frames
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
    shapes = [_Shape(kernel, stride, False, _eps(norm))]
    given: list[Tensor] = [weight_BKC, bias_BC, *_parameters(norm)]
    for layer in rest:
        norm = getattr(layer, "layer_norm", None)
        conv = layer.conv
        shapes.append(
            _Shape(
                int(conv.kernel_size[0]),
                int(conv.stride[0]),
                conv.bias is not None,
                _eps(norm),
            )
        )
        bias = [] if conv.bias is None else [conv.bias]
        given += [conv.weight, *bias, *_parameters(norm)]
    return cast(Tensor, _Encoder.apply(list(waves), shapes, *given))


@dataclass(frozen=True)
class _Shape:
    """Of one convolution. ``norm_eps`` is None where no norm over channels follows it."""

    kernel: int
    stride: int
    has_bias: bool
    norm_eps: float | None


class _Layer:
    """The tensors of one convolution, and the gradients that are summed up for them."""

    def __init__(self, shape: _Shape, given: Iterator[Tensor], *, gradients: bool) -> None:
        self.shape = shape
        self.weight_OCK = next(given)
        self.bias_O = next(given) if shape.has_bias else None
        self.norm = _Norm.of(shape, given)
        # One (taps x C, O) matrix for the taps within each stride, which are neighbours in memory.
        self.taps = [
            self.weight_OCK[:, :, first : first + shape.stride]
            .permute(2, 1, 0)
            .reshape(-1, self.weight_OCK.shape[0])
            for first in range(0, shape.kernel, shape.stride)
        ]
        if gradients:
            self.taps_grad = [torch.zeros_like(x) for x in self.taps]
            self.sums = _Sums(self.bias_O, self.norm)

    def forward(self, x_TC: Tensor) -> Tensor:
        """The sums (T, O) before norm and activation."""
        steps = (len(x_TC) - self.shape.kernel) // self.shape.stride + 1
        y_TO = x_TC.new_empty(steps, self.taps[0].shape[1])
        for i, weight in enumerate(self.taps):
            rows = self._rows(x_TC, i, steps)
            if i:
                y_TO.addmm_(rows, weight)
            elif self.bias_O is None:
                torch.mm(rows, weight, out=y_TO)
            else:
                torch.addmm(self.bias_O, rows, weight, out=y_TO)
        return y_TO

    def backward(self, grad_TO: Tensor, x_TC: Tensor) -> Tensor:
        """The gradient of ``x_TC``, from that of the sums. Adds up the gradients of the tensors."""
        steps = len(grad_TO)
        if self.sums.bias_grad is not None:
            self.sums.bias_grad += grad_TO.sum(0)
        grad_TC = torch.empty_like(x_TC)
        grad_TC[steps * self.shape.stride :] = 0
        for i, (weight, weight_grad) in enumerate(zip(self.taps, self.taps_grad, strict=True)):
            weight_grad.addmm_(self._rows(x_TC, i, steps).t(), grad_TO)
            rows = self._rows(grad_TC, i, steps)
            if i:
                rows.addmm_(grad_TO, weight.t())
            else:
                torch.mm(grad_TO, weight.t(), out=rows)
        return grad_TC

    def gradients(self) -> list[Tensor]:
        """In the order of the given tensors."""
        channels = self.weight_OCK.shape[1]
        by_tap = [x.view(-1, channels, x.shape[1]) for x in self.taps_grad]
        weight_grad = torch.cat(by_tap).permute(2, 1, 0).contiguous()
        return [weight_grad, *self.sums.gradients()]

    def _rows(self, x_TC: Tensor, i: int, steps: int) -> Tensor:
        """(steps, taps x C): what group ``i`` of taps reads; a view."""
        channels, first = x_TC.shape[1], i * self.shape.stride
        return x_TC.as_strided(
            (steps, len(self.taps[i])),
            (self.shape.stride * channels, 1),
            x_TC.storage_offset() + first * channels,
        )


@dataclass(frozen=True)
class _Norm:
    """A layer norm over channels."""

    weight_C: Tensor
    bias_C: Tensor
    eps: float

    @classmethod
    def of(cls, shape: _Shape, given: Iterator[Tensor]) -> _Norm | None:
        return None if shape.norm_eps is None else cls(next(given), next(given), shape.norm_eps)


class _Sums:
    """Gradients of a bias and a norm."""

    def __init__(self, bias_O: Tensor | None, norm: _Norm | None) -> None:
        self.bias_grad = None if bias_O is None else torch.zeros_like(bias_O)
        self.norm_grad = (
            None
            if norm is None
            else [torch.zeros_like(norm.weight_C), torch.zeros_like(norm.bias_C)]
        )

    def gradients(self) -> list[Tensor]:
        return [
            *([] if self.bias_grad is None else [self.bias_grad]),
            *(self.norm_grad or []),
        ]


class _Encoder(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, waves: list[Tensor], shapes: list[_Shape], *given: Tensor) -> Tensor:
        weight_BKC, bias_BC = given[:2]
        left = iter(given[2:])
        first = _First(shapes[0], weight_BKC, bias_BC, left)
        layers = [_Layer(shape, left, gradients=False) for shape in shapes[1:]]
        counts = [num_frames(len(wave)) for wave in waves]
        out_MC = weight_BKC.new_empty(sum(counts), layers[-1].taps[0].shape[1])
        kept: list[Tensor] = []
        row = 0
        for clip, start, stop in _chunks(counts):
            x_TC = _active(
                first.forward(waves[clip], clip, start, _rows(layers, stop - start)), first.norm
            )
            for layer in layers:
                y_TO = layer.forward(x_TC)
                kept.append(y_TO)
                x_TC = _active(y_TO, layer.norm)
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
        first = _First(ctx.shapes[0], weight_BKC, bias_BC, left)
        layers = [_Layer(shape, left, gradients=True) for shape in ctx.shapes[1:]]
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
                grad = _before_active(grad, sums[at], layer.norm, layer.sums)
                below, below_norm = (
                    (sums[at - 1], layers[at - 1].norm) if at else (first_TC, first.norm)
                )
                grad = layer.backward(grad, _active(below, below_norm))
            grad = _before_active(grad, first_TC, first.norm, first.sums)
            first.add(patches_TK, grad, clip)
        gradients = first.gradients()
        for layer in layers:
            gradients += layer.gradients()
        return None, None, *gradients


class _First:
    """The first convolution: weights and bias of each clip (B, K, C), or one for all clips (1, K, C)."""

    def __init__(
        self, shape: _Shape, weight_BKC: Tensor, bias_BC: Tensor, given: Iterator[Tensor]
    ) -> None:
        self._shape = shape
        self._weight_BKC, self._bias_BC = weight_BKC, bias_BC
        self.norm = _Norm.of(shape, given)
        self._weight_grad = torch.zeros_like(weight_BKC)
        self._bias_grad = torch.zeros_like(bias_BC)
        self.sums = _Sums(None, self.norm)

    def forward(self, wave_N: Tensor, clip: int, start: int, rows: int) -> Tensor:
        """(T, C): the sums that the frames from ``start`` on depend on."""
        return self.again(wave_N, clip, start, rows)[1]

    def again(self, wave_N: Tensor, clip: int, start: int, rows: int) -> tuple[Tensor, Tensor]:
        """The patches (T, K) of samples, and the sums (T, C)."""
        at = min(clip, len(self._bias_BC) - 1)
        patches_TK = _patches(
            wave_N[start * FRAME_HOP_SAMPLES :], self._shape.kernel, self._shape.stride
        )[:rows].contiguous()
        return patches_TK, torch.addmm(self._bias_BC[at], patches_TK, self._weight_BKC[at])

    def add(self, patches_TK: Tensor, grad_TC: Tensor, clip: int) -> None:
        at = min(clip, len(self._bias_BC) - 1)
        self._weight_grad[at].addmm_(patches_TK.t(), grad_TC)
        self._bias_grad[at] += grad_TC.sum(0)

    def gradients(self) -> list[Tensor]:
        return [self._weight_grad, self._bias_grad, *self.sums.gradients()]


def _chunks(counts: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(clip, first frame, frame behind the last one)."""
    for clip, total in enumerate(counts):
        for start in range(0, total, _CHUNK_FRAMES):
            yield clip, start, min(total, start + _CHUNK_FRAMES)


def _rows(layers: Sequence[_Layer], frames: int) -> int:
    """How many rows of the first convolution ``frames`` frames depend on."""
    rows = frames
    for layer in reversed(layers):
        rows = (rows - 1) * layer.shape.stride + layer.shape.kernel
    return rows


def _active(sums_TC: Tensor, norm: _Norm | None) -> Tensor:
    """Norm, if there is one, and GELU."""
    if norm is not None:
        sums_TC = nn.functional.layer_norm(
            sums_TC, norm.weight_C.shape, norm.weight_C, norm.bias_C, norm.eps
        )
    return nn.functional.gelu(sums_TC)


def _before_active(grad_TC: Tensor, sums_TC: Tensor, norm: _Norm | None, sums: _Sums) -> Tensor:
    """The gradient of the sums, from that of :func:`_active`. Adds up the gradients of the norm."""
    gelu_backward = torch.ops.aten.gelu_backward
    if norm is None:
        return gelu_backward(grad_TC, sums_TC)
    shape, scale = list(norm.weight_C.shape), (norm.weight_C, norm.bias_C)
    normed_TC, mean, deviation = torch.native_layer_norm(sums_TC, shape, *scale, norm.eps)
    grad_TC, weight_grad, bias_grad = torch.ops.aten.native_layer_norm_backward(
        gelu_backward(grad_TC, normed_TC), sums_TC, shape, mean, deviation, *scale, [True] * 3
    )
    assert sums.norm_grad is not None
    sums.norm_grad[0] += weight_grad
    sums.norm_grad[1] += bias_grad
    return grad_TC


def _eps(norm: object) -> float | None:
    return norm.eps if isinstance(norm, nn.LayerNorm) else None


def _parameters(norm: object) -> list[Tensor]:
    return [norm.weight, norm.bias] if isinstance(norm, nn.LayerNorm) else []


def _patches(wave_N: Tensor, kernel: int, stride: int) -> Tensor:
    """(T, K): the samples that each step of the first convolution sees; a view."""
    steps = (len(wave_N) - kernel) // stride + 1
    return wave_N.as_strided((steps, kernel), (stride, 1), wave_N.storage_offset())


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
        patches_TK = _patches(wave_N, len(weight_KC), stride).double()
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
