"""The modules on top of HuBERT: pooling over frames, classification losses, heads for pseudo-labels.

``finetune.pooling`` and ``finetune.loss`` name a :class:`Pooling` and a :class:`ClassificationLoss`. Those of
this module are built in. Other packages add theirs through entry points (``head_registry.py``).

Cosines are computed in float32, whatever the autocast: at a scale of 30, the rounding of bf16 would
change a logit by 0.1.

Shapes: B batch, T frames, D input size, E embedding size, P projected size, K classes or clusters.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gmp_atl_dist.config import Section

# Vectors shorter than this get a smaller cosine, so that a vector of zero length has a finite gradient.
_MIN_NORM = 1e-4


class HeadPart(nn.Module):
    """What poolings and losses share.

    Attributes:
        options_model: the options that the configuration may set for it, which are keyword arguments of
            the constructor. A ``Section`` without fields has none.
    """

    options_model: ClassVar[type[Section]] = Section

    def reset_parameters(self) -> None:
        """Draw the parameters that this module holds itself, from the global random state.

        The emotion model calls it once after construction. Parameters of submodules are not its
        business: transformers draws those of ``nn.Linear`` and of norms.
        """


class Pooling(HeadPart):
    """Turns the frames of each clip into one vector.

    Args:
        dim: D.
        output_dim: size of the vector; none: D.
    """

    def __init__(self, dim: int, output_dim: int | None = None) -> None:
        super().__init__()
        self.output_dim = output_dim or dim

    @abstractmethod
    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        """(B, T, D) to (B, output_dim).

        The result must not depend on what frames that are not valid hold, which may be anything, inf
        included. Every clip has a valid frame.
        """
        raise NotImplementedError


class MeanPooling(Pooling):
    """Mean over the valid frames."""

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        x_BTD = x_BTD.masked_fill(~valid_BT[..., None], 0.0)
        return x_BTD.sum(1) / valid_BT.sum(1, keepdim=True)


class AttentivePooling(Pooling):
    """Mean over the valid frames, weighted by softmax(v . tanh(W x + b)).

    Self-attentive pooling as of Zhu et al. 2018 (Interspeech, equations 1-3), with one head.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.hidden = nn.Linear(dim, dim)
        # A bias would be the same for all frames, and softmax ignores such a constant.
        self.score = nn.Linear(dim, 1, bias=False)

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        score_BT = self.score(torch.tanh(self.hidden(x_BTD))).squeeze(-1).float()
        weight_BT = score_BT.masked_fill(~valid_BT, float("-inf")).softmax(-1)
        x_BTD = x_BTD.masked_fill(~valid_BT[..., None], 0.0)
        return torch.einsum("bt,btd->bd", weight_BT.to(x_BTD.dtype), x_BTD)


class LossTerms(NamedTuple):
    """The loss of each utterance (B,), float32, and the logits (B, K) that it comes from.

    A tuple, because DeepSpeed's ZeRO 3 must find the tensors in what a model returns.
    """

    loss_B: Tensor
    logits_BK: Tensor


class ClassificationLoss(HeadPart):
    """The last layer of the emotion model, and the loss that it is trained with.

    Both happen within the module's call. Only there are the weights complete: DeepSpeed's ZeRO 3 gathers
    them when a module is called, and releases them when the call returns. So a margin is applied here, not
    by the caller, and a loss may have parameters of its own.

    Class weights, and the division by the weights of all ranks, are the recipe's.

    Args:
        dim: E.
        classes: K.
    """

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.dim = dim
        self.classes = classes

    def forward(self, x_BE: Tensor, target_B: Tensor | None = None) -> Tensor | LossTerms:
        """:meth:`logits` without targets, :meth:`terms` with targets (int64 classes)."""
        return self.logits(x_BE) if target_B is None else self.terms(x_BE, target_B)

    @abstractmethod
    def logits(self, x_BE: Tensor) -> Tensor:
        """Logits (B, K) for prediction; their softmax gives the probabilities."""
        raise NotImplementedError

    def terms(self, x_BE: Tensor, target_B: Tensor) -> LossTerms:
        """What training needs; here the cross-entropy of :meth:`logits`."""
        return cross_entropy_terms(self.logits(x_BE), target_B)


def cross_entropy_terms(logits_BK: Tensor, target_B: Tensor) -> LossTerms:
    """The cross-entropy of each row, in float32."""
    loss_B = F.cross_entropy(logits_BK.float(), target_B, reduction="none")
    return LossTerms(loss_B, logits_BK)


class CrossEntropy(ClassificationLoss):
    """A linear layer with plain cross-entropy."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__(dim, classes)
        self.weight = nn.Parameter(torch.empty(classes, dim))
        self.bias = nn.Parameter(torch.empty(classes))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.xavier_normal_(self.weight)
        nn.init.zeros_(self.bias)

    def logits(self, x_BE: Tensor) -> Tensor:
        return F.linear(x_BE, self.weight, self.bias)


class AmSoftmax(ClassificationLoss):
    """Additive-margin softmax: cosine logits; training subtracts a margin from the target's cosine.

    Wang et al. 2018, "Additive Margin Softmax for Face Verification", equation 6: the loss is the
    cross-entropy of s * (cos - m * [class is the target]).

    Args:
        dim: E.
        classes: K.
        scale: s, ``finetune.am_scale``.
        margin: m, ``finetune.am_margin``.
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
        return cross_entropy_terms(self.loss_logits(x_BE, target_B), target_B)

    def loss_logits(self, x_BE: Tensor, target_B: Tensor) -> Tensor:
        """Logits (B, K) for the loss: the margin is subtracted from the target's cosine."""
        cosine_BK = cosines(x_BE, self.weight)
        margin_BK = self.margin * F.one_hot(target_B, cosine_BK.shape[-1])
        return self.scale * (cosine_BK - margin_BK)


class FrameHead(nn.Module):
    """Masked-prediction head: cosine of the projected frame and each cluster's embedding.

    HuBERT, equation 3 (Hsu et al. 2021), with fairseq's ``final_proj`` and ``label_embs_concat``.
    A softmax over all clusters equals fairseq's form with positives and negatives.
    """

    def __init__(self, dim: int, projection_dim: int, k: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.projection = nn.Linear(dim, projection_dim)
        # Uniform in [0, 1), as in fairseq.
        self.label_embeddings = nn.Parameter(torch.rand(k, projection_dim))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) to logits (B, T, K)."""
        return cosines(self.projection(x_BTD), self.label_embeddings) / self.temperature


class LinearFrameHead(nn.Module):
    """Plain frame classification, for ``retrain.masked = false``."""

    def __init__(self, dim: int, k: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, k)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) to logits (B, T, K)."""
        return self.linear(x_BTD)


def cosines(x_XD: Tensor, y_KD: Tensor) -> Tensor:
    """The cosines, in float32, of each vector along the last axis of ``x_XD`` and each row of ``y_KD``."""
    with torch.autocast(x_XD.device.type, enabled=False):
        x_XD = F.normalize(x_XD.float(), dim=-1, eps=_MIN_NORM)
        return F.linear(x_XD, F.normalize(y_KD.float(), dim=-1, eps=_MIN_NORM))
