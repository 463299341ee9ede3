"""Losses as sums with their counts, so that the caller can normalise over all ranks at once.

A mean of the ranks' means would give a rank with few masked frames the weight of one with many. All
sums are float32 scalars on the inputs' device. They belong to the graph even if the count is zero.

Shapes: B batch, T frames, C channels, K classes or clusters, S scales, M selected frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORED_LABEL = -100
"""The value in label tensors after a clip's last frame."""


@dataclass(frozen=True, slots=True)
class ScaleJoin:
    """How the losses of several scales become one.

    The default is their mean: every scale has the same weight, whatever its k. fairseq sums them
    (``hubert_criterion.py``), so that its feature penalty weighs less the more scales there are.

    Attributes:
        weights: one per scale; empty: 1 each.
        reduction: ``mean``: the weighted sum, divided by the sum of the weights. ``sum``: the weighted sum.
    """

    weights: tuple[float, ...] = ()
    reduction: Literal["mean", "sum"] = "mean"

    def __call__(self, loss_S: Tensor) -> Tensor:
        """One loss of S.

        Raises:
            ValueError: there are weights, and they are not as many as scales.
        """
        if self.weights and len(self.weights) != len(loss_S):
            raise ValueError(f"{len(self.weights)} weights for the losses of {len(loss_S)} scales")
        weight_S = torch.tensor(self.weights or (1.0,) * len(loss_S), device=loss_S.device)
        if self.reduction == "sum":
            return (weight_S * loss_S).sum()
        if not self.weights:
            return loss_S.mean()
        return (weight_S * loss_S).sum() / weight_S.sum()


@dataclass(frozen=True, slots=True)
class FrameSums:
    """Sums over the selected frames of a batch, each frame times its row's weight.

    Attributes:
        loss: cross-entropy; the scales' sums, joined as :class:`ScaleJoin` says.
        count: frames.
        loss_S: cross-entropy per scale, without a gradient.
        correct_S: frames whose most likely cluster is the label, per scale.
    """

    loss: Tensor
    count: Tensor
    loss_S: Tensor
    correct_S: Tensor


_MEAN = ScaleJoin()


def weighted_cross_entropy_sum(
    logits_BK: Tensor,
    target_B: Tensor,
    class_weight_K: Tensor | None = None,
    row_weight_B: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Sum of w[target] * CE over rows, and the sum of those weights.

    Their quotient is ``torch.nn.functional.cross_entropy(..., weight=class_weight_K)``.

    Args:
        logits_BK: of any float type; computed in float32.
        target_B: int64 classes.
        class_weight_K: None gives all classes the same weight.
        row_weight_B: 0 for rows that only fill a batch up; None counts every row once.
    """
    ce_B = F.cross_entropy(logits_BK.float(), target_B, reduction="none")
    return weighted_sum(ce_B, target_B, class_weight_K, row_weight_B)


def weighted_sum(
    loss_B: Tensor,
    target_B: Tensor,
    class_weight_K: Tensor | None = None,
    row_weight_B: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Sum of w[target] * loss over rows, and the sum of those weights.

    For the arguments see :func:`weighted_cross_entropy_sum`.
    """
    loss_B = loss_B.float()
    weight_B = torch.ones_like(loss_B) if row_weight_B is None else row_weight_B.float()
    if class_weight_K is not None:
        weight_B = weight_B * class_weight_K.float()[target_B]
    return (weight_B * loss_B).sum(), weight_B.sum()


def frame_prediction_sums(
    logits: Sequence[Tensor],
    labels_SBT: Tensor,
    select_BT: Tensor,
    row_weight_B: Tensor | None = None,
    join: ScaleJoin = _MEAN,
) -> FrameSums:
    """Cross-entropy of the selected frames against the pseudo-labels of every scale.

    Masked prediction (HuBERT, equation 1 with alpha = 1) if ``select_BT`` selects the masked valid
    frames; plain cross-entropy if it selects all valid frames.

    Args:
        logits: (B, T, K) per scale; K may differ.
        labels_SBT: int64; never read outside ``select_BT``.
        select_BT: True on the frames that count.
        row_weight_B: see :func:`weighted_cross_entropy_sum`.
        join: how the scales become one loss.

    Raises:
        ValueError: the numbers of heads and scales differ, or a selected frame's label is not a cluster
            of its scale. Without this check, a model would train on labels of another codebook.
    """
    if len(logits) != len(labels_SBT) or not logits:
        raise ValueError(f"{len(logits)} heads with labels of {len(labels_SBT)} scales")
    weight_BT = select_BT.float() if row_weight_B is None else select_BT * row_weight_B[:, None]
    weight_M = weight_BT[select_BT].float()
    losses: list[Tensor] = []
    correct: list[Tensor] = []
    for scale, (logits_BTK, labels_BT) in enumerate(zip(logits, labels_SBT, strict=True)):
        logits_MK, labels_M = logits_BTK[select_BT].float(), labels_BT[select_BT]
        _check_labels(labels_M, logits_MK.shape[-1], scale)
        losses.append((weight_M * F.cross_entropy(logits_MK, labels_M, reduction="none")).sum())
        correct.append((weight_M * (logits_MK.detach().argmax(-1) == labels_M)).sum())
    loss_S = torch.stack(losses)
    return FrameSums(join(loss_S), weight_M.sum(), loss_S.detach(), torch.stack(correct))


def feature_penalty_sum(
    conv_features_BTC: Tensor, valid_BT: Tensor, row_weight_B: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sum over valid frames of the mean square over channels, and the count of those frames.

    fairseq's ``features_pen`` (``hubert.py``) is the mean over all frames, padding included. Here the
    padding is left out. The penalty keeps the convolutional features from growing without bound.
    """
    square_BT = conv_features_BTC.float().square().mean(-1)
    weight_BT = valid_BT.float() if row_weight_B is None else valid_BT * row_weight_B[:, None]
    # masked_fill, because the padding may hold inf, and inf times zero is NaN.
    return (square_BT.masked_fill(~valid_BT, 0.0) * weight_BT).sum(), weight_BT.float().sum()


def balanced_class_weights(counts: Sequence[float]) -> Tensor:
    """n / (K * count) per class, float32: scikit-learn's ``class_weight='balanced'``.

    A class without an example gets weight 0, which is never read.

    Raises:
        ValueError: a count is negative, or all are zero.
    """
    counts_K = torch.tensor(list(counts), dtype=torch.float64)
    if not len(counts_K) or (counts_K < 0).any() or counts_K.sum() == 0:
        raise ValueError(f"class counts {list(counts)} hold no example")
    weights_K = counts_K.sum() / (len(counts_K) * counts_K)
    return weights_K.masked_fill(counts_K == 0, 0.0).float()


def _check_labels(labels_M: Tensor, k: int, scale: int) -> None:
    if not labels_M.numel():
        return
    low, high = (int(bound) for bound in torch.aminmax(labels_M))
    if low < 0 or high >= k:
        raise ValueError(
            f"labels of scale {scale} run from {low} to {high} on the selected frames, and its head has {k} "
            f"clusters; they belong to another codebook or to other audio"
        )
