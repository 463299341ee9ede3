"""One convolution of HuBERT's encoder over rows of time: forward, backward, norm and activation.

``packed_conv.py`` puts them together.

Shapes: N samples, T time steps, C input and O output channels, K taps, B clips.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gmp_atl_dist.audio import FRAME_HOP_SAMPLES
from gmp_atl_dist.models.conv_encoder import row_conv, tap_matrices, tap_rows


@dataclass(frozen=True)
class ConvShape:
    """Of one convolution. ``norm_eps`` is None where no norm over channels follows it."""

    kernel: int
    stride: int
    has_bias: bool
    norm_eps: float | None


class ConvLayer:
    """The tensors of one convolution, and the gradients that are summed up for them."""

    def __init__(self, shape: ConvShape, given: Iterator[Tensor], *, gradients: bool) -> None:
        self.shape = shape
        self.weight_OCK = next(given)
        self.bias_O = next(given) if shape.has_bias else None
        self.norm = ChannelNorm.of(shape, given)
        self.taps = tap_matrices(self.weight_OCK, shape.stride)
        if gradients:
            self.taps_grad = [torch.zeros_like(x) for x in self.taps]
            self.sums = NormGradients(self.bias_O, self.norm)

    def forward(self, x_TC: Tensor) -> Tensor:
        """The sums (T, O) before norm and activation."""
        return row_conv(x_TC, self.taps, self.bias_O, self.shape.kernel, self.shape.stride)

    def backward(self, grad_TO: Tensor, x_TC: Tensor) -> Tensor:
        """The gradient of ``x_TC``, from that of the sums. Adds up the gradients of the tensors."""
        steps = len(grad_TO)
        if self.sums.bias_grad is not None:
            self.sums.bias_grad += grad_TO.sum(0)
        grad_TC = torch.empty_like(x_TC)
        grad_TC[steps * self.shape.stride :] = 0
        for i, (weight, weight_grad) in enumerate(zip(self.taps, self.taps_grad, strict=True)):
            weight_grad.addmm_(
                tap_rows(x_TC, i, len(weight), self.shape.stride, steps).t(), grad_TO
            )
            rows = tap_rows(grad_TC, i, len(weight), self.shape.stride, steps)
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


@dataclass(frozen=True)
class ChannelNorm:
    """A layer norm over channels."""

    weight_C: Tensor
    bias_C: Tensor
    eps: float

    @classmethod
    def of(cls, shape: ConvShape, given: Iterator[Tensor]) -> ChannelNorm | None:
        return None if shape.norm_eps is None else cls(next(given), next(given), shape.norm_eps)


class NormGradients:
    """Gradients of a bias and a norm."""

    def __init__(self, bias_O: Tensor | None, norm: ChannelNorm | None) -> None:
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


class FirstConv:
    """The first convolution: weights and bias of each clip (B, K, C), or one for all clips (1, K, C)."""

    def __init__(
        self, shape: ConvShape, weight_BKC: Tensor, bias_BC: Tensor, given: Iterator[Tensor]
    ) -> None:
        self._shape = shape
        self._weight_BKC, self._bias_BC = weight_BKC, bias_BC
        self.norm = ChannelNorm.of(shape, given)
        self._weight_grad = torch.zeros_like(weight_BKC)
        self._bias_grad = torch.zeros_like(bias_BC)
        self.sums = NormGradients(None, self.norm)

    def forward(self, wave_N: Tensor, clip: int, start: int, rows: int) -> Tensor:
        """(T, C): the sums that the frames from ``start`` on depend on."""
        return self.again(wave_N, clip, start, rows)[1]

    def again(self, wave_N: Tensor, clip: int, start: int, rows: int) -> tuple[Tensor, Tensor]:
        """The patches (T, K) of samples, and the sums (T, C)."""
        at = min(clip, len(self._bias_BC) - 1)
        patches_TK = patches(
            wave_N[start * FRAME_HOP_SAMPLES :], self._shape.kernel, self._shape.stride
        )[:rows].contiguous()
        return patches_TK, torch.addmm(self._bias_BC[at], patches_TK, self._weight_BKC[at])

    def add(self, patches_TK: Tensor, grad_TC: Tensor, clip: int) -> None:
        at = min(clip, len(self._bias_BC) - 1)
        self._weight_grad[at].addmm_(patches_TK.t(), grad_TC)
        self._bias_grad[at] += grad_TC.sum(0)

    def gradients(self) -> list[Tensor]:
        return [self._weight_grad, self._bias_grad, *self.sums.gradients()]


def active(sums_TC: Tensor, norm: ChannelNorm | None) -> Tensor:
    """Norm, if there is one, and GELU."""
    if norm is not None:
        sums_TC = nn.functional.layer_norm(
            sums_TC, norm.weight_C.shape, norm.weight_C, norm.bias_C, norm.eps
        )
    return nn.functional.gelu(sums_TC)


def before_active(
    grad_TC: Tensor, sums_TC: Tensor, norm: ChannelNorm | None, sums: NormGradients
) -> Tensor:
    """The gradient of the sums, from that of :func:`active`. Adds up the gradients of the norm."""
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


def patches(wave_N: Tensor, kernel: int, stride: int) -> Tensor:
    """(T, K): the samples that each step of the first convolution sees; a view."""
    steps = (len(wave_N) - kernel) // stride + 1
    return wave_N.as_strided((steps, kernel), (stride, 1), wave_N.storage_offset())
