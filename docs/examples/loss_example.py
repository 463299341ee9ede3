"""A complete loss in one file: ``arcface``, which adds a margin to the angle of the target's class.

Deng et al. 2019, "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", arXiv 1801.07698,
equation 3. With s the scale, m the margin, and theta_j the angle between the embedding and the weight of
class j, the loss of an utterance of class y is

    -log( exp(s cos(theta_y + m)) / (exp(s cos(theta_y + m)) + sum over j != y of exp(s cos(theta_j))) )

cos(theta + m) rises again where theta + m passes pi. There the loss continues as cos(theta) - m sin(m), as
the authors' implementation does, so that it falls with theta everywhere.

Shapes: B batch, E embedding size, K classes.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from gmp_atl_dist.config import PositiveFloat, Section
from gmp_atl_dist.models.heads import ClassificationLoss, LossTerms, cosines, cross_entropy_terms

# The derivative of a sine is infinite where the sine is zero.
_MIN_SINE = 1e-4


class ArcFaceOptions(Section):
    """What ``[finetune.loss_options]`` may hold. Unknown keys are refused."""

    scale: PositiveFloat = 30.0
    margin_rad: Annotated[float, Field(ge=0, lt=math.pi / 2)] = 0.2


class ArcFace(ClassificationLoss):
    """Additive angular margin. The options are arguments of the constructor."""

    options_model: ClassVar[type[Section]] = ArcFaceOptions

    def __init__(self, dim: int, classes: int, scale: float, margin_rad: float) -> None:
        super().__init__(dim, classes)
        self.scale = scale
        self.margin_rad = margin_rad
        self.weight = nn.Parameter(torch.empty(classes, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.xavier_normal_(self.weight)

    def logits(self, x_BE: Tensor) -> Tensor:
        """For prediction: without margin."""
        return self.scale * cosines(x_BE, self.weight)

    def terms(self, x_BE: Tensor, target_B: Tensor) -> LossTerms:
        """For training: the margin is added to the target's angle."""
        cosine_BK = cosines(x_BE, self.weight)
        cosine_B1 = cosine_BK.gather(1, target_B[:, None])
        sine_B1 = (1 - cosine_B1.square()).clamp(min=_MIN_SINE**2).sqrt()
        cos_m, sin_m = math.cos(self.margin_rad), math.sin(self.margin_rad)
        with_margin_B1 = torch.where(
            cosine_B1 > -cos_m,  # theta + m < pi
            cosine_B1 * cos_m - sine_B1 * sin_m,
            cosine_B1 - self.margin_rad * sin_m,
        )
        return cross_entropy_terms(
            self.scale * cosine_BK.scatter(1, target_B[:, None], with_margin_B1), target_B
        )
