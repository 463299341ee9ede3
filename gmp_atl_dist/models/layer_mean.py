"""A learnt mean of the layers of a model (SUPERB, Yang et al. 2021, arXiv 2105.01051, section 2).

Shapes: B batch, T frames, D hidden size, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from gmp_atl_dist.models.heads import HeadPart

PoolLayers: TypeAlias = Literal["last", "average"]
"""Which frames are pooled: those of the last layer, or the mean of all layers."""


class LayerMean(HeadPart):
    """The mean of all layers with softmax weights, which are equal at first.

    Args:
        num_layers: L, the encoder's input among them.
    """

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        self.logits_L = torch.nn.Parameter(torch.zeros(num_layers))

    def reset_parameters(self) -> None:
        torch.nn.init.zeros_(self.logits_L)

    def forward(self, frames: Sequence[Tensor]) -> Tensor:
        """L tensors (B, T, D) to one. One after the other, so that they are not stacked in memory."""
        weights = self.logits_L.softmax(0).to(frames[0].dtype)
        total_BTD = weights[0] * frames[0]
        for weight, x_BTD in zip(weights[1:], frames[1:], strict=True):
            total_BTD = total_BTD + weight * x_BTD
        return total_BTD
