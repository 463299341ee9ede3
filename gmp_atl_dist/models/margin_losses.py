"""The losses that push the cosine of the target class up by a margin: AM-Softmax and AAM-Softmax (ArcFace).

Shapes: B batch, E embedding size, K classes.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gmp_atl_dist.models.heads import (
    ClassificationLoss,
    LossTerms,
    cosines,
    cross_entropy_terms,
)


class MarginSoftmax(ClassificationLoss):
    """Cosine logits; training lowers the target's by a margin.

    Args:
        dim: E.
        classes: K.
        scale: s, ``finetune.am_scale``.
        margin: m, ``finetune.am_margin``. Training may raise ``self.margin`` from 0 to it.
    """

    def __init__(self, dim: int, classes: int, scale: float, margin: float) -> None:
        super().__init__(dim, classes)
        self.scale = scale
        self.margin = margin
        self.weight = nn.Parameter(torch.empty(classes, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.xavier_normal_(self.weight)

    def logits(self, x_BE: Tensor) -> Tensor:
        """Cosines times the scale, without margin."""
        return self.scale * cosines(x_BE, self.weight)

    def terms(self, x_BE: Tensor, target_B: Tensor) -> LossTerms:
        cosine_BK = cosines(x_BE, self.weight)
        terms = cross_entropy_terms(self._lowered(cosine_BK, target_B), target_B)
        return terms._replace(without_margin_BK=self.scale * cosine_BK.detach())

    def loss_logits(self, x_BE: Tensor, target_B: Tensor) -> Tensor:
        """Logits (B, K) for the loss, with the margin."""
        return self._lowered(cosines(x_BE, self.weight), target_B)

    @abstractmethod
    def _lowered(self, cosine_BK: Tensor, target_B: Tensor) -> Tensor:
        """The scaled cosines, those of the targets with the margin."""
        raise NotImplementedError


class AmSoftmax(MarginSoftmax):
    """Additive-margin softmax: the margin is subtracted from the target's cosine.

    Wang et al. 2018, "Additive Margin Softmax for Face Verification", arXiv 1801.05599, equation 6: the loss
    is the cross-entropy of s * (cos - m * [class is the target]).
    """

    def _lowered(self, cosine_BK: Tensor, target_B: Tensor) -> Tensor:
        margin_BK = self.margin * F.one_hot(target_B, cosine_BK.shape[-1])
        return self.scale * (cosine_BK - margin_BK)


class AamSoftmax(MarginSoftmax):
    """Additive angular margin softmax (ArcFace): the margin, in radians, is added to the target's angle.

    Deng et al. 2019, arXiv 1801.07698, equation 3: the target's logit is s * cos(angle + m). Beyond an angle
    of pi - m the cosine would rise again. There it is continued by cos(angle) - m * sin(m), which falls
    on, as in the authors' code.
    """

    def _lowered(self, cosine_BK: Tensor, target_B: Tensor) -> Tensor:
        cosine_B1 = cosine_BK.gather(-1, target_B[:, None])
        # The root has no finite gradient at 0.
        sine_B1 = (1 - cosine_B1.square()).clamp_min(torch.finfo(torch.float32).eps).sqrt()
        cos_m, sin_m = math.cos(self.margin), math.sin(self.margin)
        added_B1 = torch.where(
            cosine_B1 > -cos_m,
            cosine_B1 * cos_m - sine_B1 * sin_m,
            cosine_B1 - self.margin * sin_m,
        )
        return self.scale * cosine_BK.scatter(-1, target_B[:, None], added_B1)
