"""The modules on top of HuBERT: pooling over frames, classification losses, heads for pseudo-labels.

``finetune.pooling`` and ``finetune.loss`` name a :class:`Pooling` and a :class:`ClassificationLoss`. Those of
this module are built in. Other packages add theirs through entry points (``head_registry.py``).

Cosines are computed in float32, whatever the autocast: at a scale of 30, the rounding of bf16 would
change a logit by 0.1.

Shapes: B batch, T frames, D input size, E embedding size, P projected size, K classes or clusters.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from gmp_atl_dist.config import Section
from gmp_atl_dist.models.frame_losses import FrameTerms, frame_terms

# Vectors shorter than this get a smaller cosine, so that a vector of zero length has a finite gradient.
_MIN_NORM = 1e-4
_MIN_VARIANCE = 1e-10


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


class StatisticsPooling(Pooling):
    """Mean and standard deviation over the valid frames, one after the other: a vector of size 2 D.

    Statistics pooling of Snyder et al. 2018 (x-vectors, ICASSP), without its bias correction: a clip of one
    frame has a deviation of 0. Computed in float32, because the squares of bf16 would lose the deviation.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim, 2 * dim)

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        valid_BT1 = valid_BT[..., None]
        count_B1 = valid_BT.sum(1, keepdim=True)
        with torch.autocast(x_BTD.device.type, enabled=False):
            clean_BTD = x_BTD.float().masked_fill(~valid_BT1, 0.0)
            mean_BD = clean_BTD.sum(1) / count_B1
            centred_BTD = (clean_BTD - mean_BD[:, None]).masked_fill(~valid_BT1, 0.0)
            variance_BD = centred_BTD.square().sum(1) / count_B1
            # The root has no finite gradient at 0, where all frames are alike.
            deviation_BD = variance_BD.clamp_min(_MIN_VARIANCE).sqrt()
            return torch.cat([mean_BD, deviation_BD], dim=-1).to(x_BTD.dtype)


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

    A loss with a margin also gives the logits without it, which have no gradient; others leave them out.
    A tuple, because DeepSpeed's ZeRO 3 must find the tensors in what a model returns.
    """

    loss_B: Tensor
    logits_BK: Tensor
    without_margin_BK: Tensor | None = None


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


class FocalOptions(Section):
    """What ``finetune.loss_options`` may hold for ``focal``."""

    gamma: Annotated[float, Field(ge=0)] = Field(
        default=2.0,
        description="how much less a well-classified utterance counts; 0: cross-entropy",
    )


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


class FocalLoss(CrossEntropy):
    """A linear layer with the focal loss (Lin et al. 2017, arXiv 1708.02002, equation 4).

    The loss is (1 - p)^gamma * -log(p), with p the probability of the target. Their alpha is the
    recipe's class weight. With gamma = 0 it is the cross-entropy.

    Args:
        dim: E.
        classes: K.
        gamma: how much less a well-classified utterance counts.
    """

    options_model: ClassVar[type[Section]] = FocalOptions

    def __init__(self, dim: int, classes: int, gamma: float) -> None:
        super().__init__(dim, classes)
        self.gamma = gamma

    def terms(self, x_BE: Tensor, target_B: Tensor) -> LossTerms:
        logits_BK = self.logits(x_BE)
        ce_B = F.cross_entropy(logits_BK.float(), target_B, reduction="none")
        # expm1, because 1 - p of a sure prediction would round to 0. A power of 0 has no finite gradient
        # for gamma < 1; a cross-entropy of 0 has p = 1 exactly.
        other_B = (-torch.expm1(-ce_B)).clamp_min(torch.finfo(torch.float32).tiny)
        return LossTerms(other_B**self.gamma * ce_B, logits_BK)


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

    def forward(self, x_MD: Tensor, labels_M: Tensor | None = None) -> Tensor | FrameTerms:
        """(..., D) to logits (..., K); with labels, (M, D) to the terms of the loss."""
        x_MP = self.projection(x_MD)
        if labels_M is None:
            return cosines(x_MP, self.label_embeddings) / self.temperature
        with torch.autocast(x_MD.device.type, enabled=False):
            x_MP, label_KP = unit(x_MP), unit(self.label_embeddings)
            return frame_terms(x_MP, label_KP, None, labels_M, 1 / self.temperature)


class LinearFrameHead(nn.Module):
    """Plain frame classification, for ``retrain.masked = false``."""

    def __init__(self, dim: int, k: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, k)

    def forward(self, x_MD: Tensor, labels_M: Tensor | None = None) -> Tensor | FrameTerms:
        """(..., D) to logits (..., K); with labels, (M, D) to the terms of the loss."""
        if labels_M is None:
            return self.linear(x_MD)
        weight_KD, bias_K = self.linear.weight, self.linear.bias
        with torch.autocast(x_MD.device.type, enabled=False):
            return frame_terms(x_MD.to(weight_KD.dtype), weight_KD, bias_K, labels_M, 1.0)


def cosines(x_XD: Tensor, y_KD: Tensor) -> Tensor:
    """The cosines, in float32, of each vector along the last axis of ``x_XD`` and each row of ``y_KD``."""
    with torch.autocast(x_XD.device.type, enabled=False):
        return F.linear(unit(x_XD), unit(y_KD))


def unit(x_XD: Tensor) -> Tensor:
    """Each vector along the last axis, of length 1, in float32 at least."""
    x_XD = x_XD.to(torch.promote_types(x_XD.dtype, torch.float32))
    return F.normalize(x_XD, dim=-1, eps=_MIN_NORM)
