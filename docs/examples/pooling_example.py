"""A complete pooling in one file: ``moments``, the mean and standard deviation over the valid frames.

Snyder et al. 2018, "X-vectors: Robust DNN embeddings for speaker recognition" (ICASSP). The
result has twice the size of a frame.

Shapes: B batch, T frames, D hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gmp_atl_dist.models.heads import Pooling

_MIN_VARIANCE = 1e-6


class MomentsPooling(Pooling):
    """[mean, standard deviation] of each dimension."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, output_dim=2 * dim)

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        # masked_fill, because padding may hold inf, and inf times zero is NaN.
        x_BTD = x_BTD.masked_fill(~valid_BT[..., None], 0.0)
        count_B1 = valid_BT.sum(1, keepdim=True)
        mean_BD = x_BTD.sum(1) / count_B1
        deviation_BTD = (x_BTD - mean_BD[:, None]).masked_fill(~valid_BT[..., None], 0.0)
        variance_BD = deviation_BTD.square().sum(1) / count_B1
        return torch.cat([mean_BD, variance_BD.clamp(min=_MIN_VARIANCE).sqrt()], dim=-1)
