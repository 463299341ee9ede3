"""Cross-entropy of frames against pseudo-labels, without keeping the logits of all frames.

With thousands of clusters the logits of a pass are larger than everything else. They are computed for some
frames at a time, and again in the backward pass.

Shapes: M frames, D size of a frame's vector, K clusters.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

_MOST_LOGITS = 1 << 21
"""In memory at once, 8 MB."""


class FrameTerms(NamedTuple):
    """Of each frame: the cross-entropy (M,), and whether the label is the most likely cluster (M,).

    A tuple, because DeepSpeed's ZeRO 3 must find the tensors in what a module returns.
    """

    loss_M: Tensor
    correct_M: Tensor


def frame_terms(
    x_MD: Tensor, weight_KD: Tensor, bias_K: Tensor | None, labels_M: Tensor, scale: float
) -> FrameTerms:
    """Of the logits ``scale * x_MD @ weight_KD.T + bias_K``. The labels are int64 clusters."""
    return FrameTerms(*cast(Any, _CrossEntropy.apply(x_MD, weight_KD, bias_K, labels_M, scale)))


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_MD: Tensor,
        weight_KD: Tensor,
        bias_K: Tensor | None,
        labels_M: Tensor,
        scale: float,
    ) -> tuple[Tensor, Tensor]:
        total_M, correct_M = (
            x_MD.new_empty(len(x_MD)),
            labels_M.new_empty(len(x_MD), dtype=torch.bool),
        )
        loss_M = torch.empty_like(total_M)
        for some in _pieces(len(x_MD), len(weight_KD)):
            logits_MK = _logits(x_MD[some], weight_KD, bias_K, scale)
            total_M[some] = logits_MK.logsumexp(1)
            own_M = logits_MK.gather(1, labels_M[some, None]).squeeze(1)
            loss_M[some] = total_M[some] - own_M
            correct_M[some] = logits_MK.argmax(1) == labels_M[some]
        ctx.scale = scale
        ctx.save_for_backward(x_MD, weight_KD, bias_K, labels_M, total_M)
        ctx.mark_non_differentiable(correct_M)
        return loss_M, correct_M

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        grad_M = grad_outputs[0]
        x_MD, weight_KD, bias_K, labels_M, total_M = ctx.saved_tensors
        x_grad, weight_grad = torch.empty_like(x_MD), torch.zeros_like(weight_KD)
        bias_grad = None if bias_K is None else torch.zeros_like(bias_K)
        for some in _pieces(len(x_MD), len(weight_KD)):
            grad_MK = _logits(x_MD[some], weight_KD, bias_K, ctx.scale)
            grad_MK.sub_(total_M[some, None]).exp_()
            grad_MK.scatter_add_(1, labels_M[some, None], grad_MK.new_full((len(grad_MK), 1), -1.0))
            grad_MK.mul_(grad_M[some, None])
            if bias_grad is not None:
                bias_grad += grad_MK.sum(0)
            torch.mm(grad_MK, weight_KD, out=x_grad[some])
            weight_grad.addmm_(grad_MK.t(), x_MD[some])
        return x_grad.mul_(ctx.scale), weight_grad.mul_(ctx.scale), bias_grad, None, None


def _logits(x_MD: Tensor, weight_KD: Tensor, bias_K: Tensor | None, scale: float) -> Tensor:
    logits_MK = (x_MD @ weight_KD.t()).mul_(scale)
    return logits_MK if bias_K is None else logits_MK.add_(bias_K)


def _pieces(rows: int, clusters: int) -> list[slice]:
    step = max(1, _MOST_LOGITS // clusters)
    return [slice(start, min(rows, start + step)) for start in range(0, rows, step)]
