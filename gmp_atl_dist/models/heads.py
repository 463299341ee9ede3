"""What stands on top of HuBERT: pooling over frames, AM-Softmax, and heads for pseudo-labels.

Cosines are computed in float32 whatever the autocast: at a scale of 30, the rounding of bf16 would
move a logit by 0.1.

Shapes: B batch, T frames, D input size, P projected size, K classes or clusters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Vectors shorter than this get a smaller cosine, so that one of zero length has a finite gradient.
_MIN_NORM = 1e-4


class MeanPooling(nn.Module):
    """Mean over the valid frames."""

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        """(B, T, D) to (B, D); every clip has a valid frame."""
        x_BTD = x_BTD.masked_fill(~valid_BT[..., None], 0.0)
        return x_BTD.sum(1) / valid_BT.sum(1, keepdim=True)


class AttentivePooling(nn.Module):
    """Mean over the valid frames, weighted by softmax(v . tanh(W x + b)).

    Self-attentive pooling as of Zhu et al. 2018 (Interspeech, equations 1-3), with one head.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(dim, dim)
        # A bias would be the same for all frames, and softmax does not see it.
        self.score = nn.Linear(dim, 1, bias=False)

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        """(B, T, D) to (B, D); every clip has a valid frame."""
        score_BT = self.score(torch.tanh(self.hidden(x_BTD))).squeeze(-1).float()
        weight_BT = score_BT.masked_fill(~valid_BT, float("-inf")).softmax(-1)
        x_BTD = x_BTD.masked_fill(~valid_BT[..., None], 0.0)
        return torch.einsum("bt,btd->bd", weight_BT.to(x_BTD.dtype), x_BTD)


class AmSoftmax(nn.Module):
    """Additive-margin softmax: cosine logits, and for training a margin off the target's cosine.

    Wang et al. 2018, "Additive Margin Softmax for Face Verification", equation 6: the loss is the
    cross-entropy of s * (cos - m * [class is the target]).
    """

    def __init__(self, dim: int, classes: int, scale: float, margin: float) -> None:
        super().__init__()
        self.scale = scale
        self.margin = margin
        self.weight = nn.Parameter(torch.empty(classes, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.xavier_normal_(self.weight)

    def forward(self, x_BD: Tensor, target_B: Tensor | None = None) -> Tensor:
        """Logits (B, K): cosines times the scale, without margin unless targets are given.

        By the module's call alone, at which DeepSpeed's ZeRO 3 gathers the weights.
        """
        if target_B is not None:
            return self.loss_logits(x_BD, target_B)
        return self.scale * _cosines(x_BD, self.weight)

    def loss_logits(self, x_BD: Tensor, target_B: Tensor) -> Tensor:
        """Logits (B, K) for the loss: the margin is taken off the target's cosine."""
        cosine_BK = _cosines(x_BD, self.weight)
        margin_BK = self.margin * F.one_hot(target_B, cosine_BK.shape[-1])
        return self.scale * (cosine_BK - margin_BK)


class FrameHead(nn.Module):
    """Masked-prediction head: cosine of the projected frame and each cluster's embedding.

    HuBERT, equation 3 (Hsu et al. 2021), with fairseq's ``final_proj`` and ``label_embs_concat``.
    Softmax over all clusters is what fairseq's positive-and-negatives form comes to.
    """

    def __init__(self, dim: int, projection_dim: int, k: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.projection = nn.Linear(dim, projection_dim)
        # Uniform in [0, 1), as in fairseq.
        self.label_embeddings = nn.Parameter(torch.rand(k, projection_dim))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) to logits (B, T, K)."""
        return _cosines(self.projection(x_BTD), self.label_embeddings) / self.temperature


class LinearFrameHead(nn.Module):
    """Plain frame classification, for ``retrain.masked = false``."""

    def __init__(self, dim: int, k: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, k)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) to logits (B, T, K)."""
        return self.linear(x_BTD)


def _cosines(x_XD: Tensor, y_KD: Tensor) -> Tensor:
    """Cosines in float32 of every vector along the last axis of ``x_XD`` with every row of y."""
    with torch.autocast(x_XD.device.type, enabled=False):
        x_XD = F.normalize(x_XD.float(), dim=-1, eps=_MIN_NORM)
        return F.linear(x_XD, F.normalize(y_KD.float(), dim=-1, eps=_MIN_NORM))
