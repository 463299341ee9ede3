"""Losses as sums with their counts, so that the caller can normalise over all ranks at once.

A mean of the ranks' means would give a rank with few masked frames the weight of one with many. All
sums are float32 scalars on the inputs' device. They belong to the graph even if the count is zero.

Shapes: B batch, C channels, K classes or clusters, S scales, M frames of all clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gmp_atl_dist.models.frame_losses import FrameTerms


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
    """Sums over the frames of a batch, each frame times its weight.

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
    terms: Sequence[FrameTerms], weight_M: Tensor, join: ScaleJoin = _MEAN
) -> FrameSums:
    """The loss of every scale over the same frames.

    Masked prediction (HuBERT, equation 1 with alpha = 1) if ``weight_M`` is 0 on frames that are not masked;
    plain cross-entropy if it is 1 on all frames.

    Args:
        terms: of each scale.
        weight_M: of each frame; 0 for clips that only fill a batch up.
        join: how the scales become one loss.
    """
    weight_M = weight_M.float()
    loss_S = torch.stack([(weight_M * one.loss_M).sum() for one in terms])
    correct_S = torch.stack([(weight_M * one.correct_M).sum() for one in terms])
    return FrameSums(join(loss_S), weight_M.sum(), loss_S.detach(), correct_S)


def feature_penalty_sum(conv_features_MC: Tensor, weight_M: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over frames of the mean square over channels times the weight, and the sum of weights.

    fairseq's ``features_pen`` (``hubert.py``) is the mean over all frames, padding included. Here there is no
    padding. The penalty keeps the convolutional features from growing without bound.
    """
    square_M = conv_features_MC.float().square().mean(-1)
    return (square_M * weight_M).sum(), weight_M.float().sum()


def check_labels(labels_SM: np.ndarray, ks: Sequence[int]) -> None:
    """Refuse labels of another codebook, on which a model would train without a word.

    Args:
        labels_SM: int64 labels of every scale.
        ks: clusters of each scale.

    Raises:
        ValueError: the numbers of heads and scales differ, or a label is not a cluster of its scale.
    """
    if len(ks) != len(labels_SM):
        raise ValueError(f"{len(ks)} heads with labels of {len(labels_SM)} scales")
    for scale, (labels_M, k) in enumerate(zip(labels_SM, ks, strict=True)):
        low, high = (int(labels_M.min()), int(labels_M.max())) if len(labels_M) else (0, 0)
        if low < 0 or high >= k:
            raise ValueError(
                f"labels of scale {scale} run from {low} to {high}, and its head has {k} clusters; "
                f"they belong to another codebook or to other audio"
            )


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
