"""The models of two stages: warm-up on emotion and gender, and retraining on pseudo-labels.

Both own the backbone that they are given; after training it is ``model.backbone``. The recipes add up what
they return.

Shapes: B batch, N samples, M frames of all clips, C channels, D hidden size, K classes or clusters,
G genders, S scales, X frames that count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from gmp_atl_dist.models.backbone import SpeechBackbone
from gmp_atl_dist.models.frame_losses import FrameTerms
from gmp_atl_dist.models.heads import FrameHead, LinearFrameHead, MeanPooling
from gmp_atl_dist.records import GENDERS


class WarmupOutput(NamedTuple):
    """Logits (B, K) of emotions and (B, G) of genders, in the order of ``records.GENDERS``.

    All outputs are tuples, because DeepSpeed's ZeRO 3 must find the tensors in them.
    """

    emotion_BK: Tensor
    gender_BG: Tensor


class WarmupModel(nn.Module):
    """A backbone with an emotion and a gender head on its mean frame (stage ``warmup``).

    Args:
        backbone: the speech model.
        num_emotions: K.
        pool_layers: the heads read the last layer, or a learnt mean of all layers and the encoder's input
            (softmax weights, equal at first; SUPERB, Yang et al. 2021).
        head_dropout: of the pooled vector.
    """

    def __init__(
        self,
        backbone: SpeechBackbone,
        num_emotions: int,
        pool_layers: Literal["last", "average"] = "last",
        head_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        backbone.train_mask_embedding(False)
        dim, last = backbone.hidden_size, backbone.num_layers
        self.layers = [last] if pool_layers == "last" else list(range(last + 1))
        if pool_layers == "average":
            self.layer_logits = nn.Parameter(torch.zeros(len(self.layers)))
        self.pooling = MeanPooling(dim)
        self.head_dropout = nn.Dropout(head_dropout)
        self.emotion = nn.Linear(dim, num_emotions)
        self.gender = nn.Linear(dim, len(GENDERS))

    def forward(
        self,
        wave_BN: Tensor,
        num_samples_B: Tensor,
        mask_M: Tensor | None = None,
        mask_BD: Tensor | None = None,
        seeds: Sequence[int] | None = None,
    ) -> WarmupOutput:
        """Logits of emotions and genders. For the rest see :meth:`SpeechBackbone.packed_frames`."""
        frames = self.backbone.packed_frames(
            wave_BN, num_samples_B, mask_M=mask_M, mask_BD=mask_BD, want=self.layers, seeds=seeds
        )
        # Pooling is linear, so it may come before the mean of the layers. That keeps T times less.
        pooled = [self.pooling(frames.padded(i), frames.valid_BT) for i in self.layers]
        if len(pooled) == 1:
            x_BD = pooled[0]
        else:
            weights = self.layer_logits.softmax(0)
            x_BD = torch.einsum("l,lbd->bd", weights.to(pooled[0].dtype), torch.stack(pooled))
        x_BD = self.head_dropout(x_BD)
        return WarmupOutput(self.emotion(x_BD), self.gender(x_BD))


class RetrainOutput(NamedTuple):
    """Of the frames that were asked for: what each scale's head says; and the features of all frames.

    Attributes:
        terms: per scale.
        conv_features_MC: output of the convolutional encoder.
    """

    terms: list[FrameTerms]
    conv_features_MC: Tensor


class RetrainModel(nn.Module):
    """A backbone with a frame head per scale on its last layer (stages ``retrain``, ``pretrain``).

    Args:
        backbone: the speech model.
        ks: clusters of each scale, all label ids of the scale counted.
        masked: cosine heads for masked prediction; False is plain linear heads and no mask.
        projection_dim: of the cosine heads.
        temperature: of the cosine heads.
    """

    def __init__(
        self,
        backbone: SpeechBackbone,
        ks: Sequence[int],
        *,
        masked: bool,
        projection_dim: int = 256,
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.masked = masked
        backbone.train_mask_embedding(masked)
        dim = backbone.hidden_size
        self.heads = nn.ModuleList(
            FrameHead(dim, projection_dim, k, temperature) if masked else LinearFrameHead(dim, k)
            for k in ks
        )

    def forward(
        self,
        wave_BN: Tensor,
        num_samples_B: Tensor,
        labels_SX: Tensor,
        *,
        mask_M: Tensor | None = None,
        counted_X: Tensor | None = None,
        seeds: Sequence[int] | None = None,
    ) -> RetrainOutput:
        """The loss of each frame and scale.

        Args:
            wave_BN: see :meth:`SpeechBackbone.packed_frames`.
            num_samples_B: int64, each clip's own samples.
            labels_SX: int64 labels of the frames that count.
            mask_M: True on frames of all clips that are hidden from the encoder.
            counted_X: the rows of the frames that count; None: all. The heads compute no others.
            seeds: of each clip's dropout.

        Raises:
            ValueError: a masked model got no mask, or a model without masking got one.
        """
        if (mask_M is not None) != self.masked:
            raise ValueError(f"masked = {self.masked}, and mask_M is {type(mask_M).__name__}")
        frames = self.backbone.packed_frames(wave_BN, num_samples_B, mask_M=mask_M, seeds=seeds)
        x_MD = frames.hidden[self.backbone.num_layers]
        if counted_X is not None:
            x_MD = x_MD.index_select(0, counted_X)
        terms = [head(x_MD, labels_X) for head, labels_X in zip(self.heads, labels_SX, strict=True)]
        return RetrainOutput(terms, frames.conv_features_MC)
