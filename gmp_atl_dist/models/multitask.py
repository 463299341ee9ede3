"""The models of two stages: warm-up on emotion and gender, and retraining on pseudo-labels.

Both own the backbone they are given; take it back as ``model.hubert`` when training is over. The
class scores come out raw: losses are the caller's.

Shapes: B batch, N samples, T frames, D hidden size, K classes or clusters, G genders.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from gmp_atl_dist.models.heads import FrameHead, LinearFrameHead, MeanPooling
from gmp_atl_dist.models.hubert import FrameOutput, Hubert
from gmp_atl_dist.records import GENDERS


class WarmupOutput(NamedTuple):
    """Logits (B, K) of emotions and (B, G) of genders, in the order of ``records.GENDERS``.

    A tuple, as all outputs: DeepSpeed's ZeRO 3 has to find the tensors in them.
    """

    emotion_BK: Tensor
    gender_BG: Tensor


class WarmupModel(nn.Module):
    """HuBERT with an emotion and a gender head on its mean frame (stage ``warmup``).

    Args:
        hubert: the backbone.
        num_emotions: K.
        pool_layers: what the heads read: the last layer, or a learnt mean of all hidden states with
            the encoder's input (softmax weights, equal at first; SUPERB, Yang et al. 2021).
    """

    def __init__(
        self, hubert: Hubert, num_emotions: int, pool_layers: Literal["last", "average"] = "last"
    ) -> None:
        super().__init__()
        self.hubert = hubert
        hubert.freeze_mask_embedding()
        dim, last = hubert.config.hidden_size, hubert.config.num_hidden_layers
        self.layers = [last] if pool_layers == "last" else list(range(last + 1))
        if pool_layers == "average":
            self.layer_logits = nn.Parameter(torch.zeros(len(self.layers)))
        self.pooling = MeanPooling(dim)
        self.emotion = nn.Linear(dim, num_emotions)
        self.gender = nn.Linear(dim, len(GENDERS))

    def forward(self, wave_BN: Tensor, num_samples_B: Tensor) -> WarmupOutput:
        frames = self.hubert.forward_frames(wave_BN, num_samples_B, want=self.layers)
        # Pooling is linear, so it may come before the mean of the layers: T times less to keep.
        pooled = [self.pooling(frames.hidden[i], frames.valid_BT) for i in self.layers]
        if len(pooled) == 1:
            x_BD = pooled[0]
        else:
            weights = self.layer_logits.softmax(0)
            x_BD = torch.einsum("l,lbd->bd", weights.to(pooled[0].dtype), torch.stack(pooled))
        return WarmupOutput(self.emotion(x_BD), self.gender(x_BD))


class RetrainOutput(NamedTuple):
    """Logits (B, T, K) per scale, and the frames that they come from."""

    logits: list[Tensor]
    frames: FrameOutput


class RetrainModel(nn.Module):
    """HuBERT with a frame head per scale on its last layer (stages ``retrain``, ``pretrain``).

    Args:
        hubert: the backbone.
        ks: clusters of each scale, all label ids of the scale counted.
        masked: cosine heads for masked prediction; False is plain linear heads and no mask.
        projection_dim: of the cosine heads.
        temperature: of the cosine heads.
    """

    def __init__(
        self,
        hubert: Hubert,
        ks: Sequence[int],
        *,
        masked: bool,
        projection_dim: int = 256,
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        self.hubert = hubert
        self.masked = masked
        hubert.masked_spec_embed.requires_grad_(masked)
        dim = hubert.config.hidden_size
        self.heads = nn.ModuleList(
            FrameHead(dim, projection_dim, k, temperature) if masked else LinearFrameHead(dim, k)
            for k in ks
        )

    def forward(
        self, wave_BN: Tensor, num_samples_B: Tensor, mask_BT: Tensor | None = None
    ) -> RetrainOutput:
        """Logits of all frames; ``mask_BT`` says which ones the backbone does not see.

        Raises:
            ValueError: a masked model got no mask, or the other way round.
        """
        if (mask_BT is not None) != self.masked:
            raise ValueError(f"masked = {self.masked}, and mask_BT is {type(mask_BT).__name__}")
        frames = self.hubert.forward_frames(wave_BN, num_samples_B, mask_BT=mask_BT)
        x_BTD = frames.hidden[self.hubert.config.num_hidden_layers]
        return RetrainOutput([head(x_BTD) for head in self.heads], frames)
