"""Clips of different lengths in one batch, without the padding leaking into what is computed.

Shapes: B batch, N samples, T frames or time steps, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gmp_atl_dist.audio import MIN_SAMPLES
from gmp_atl_dist.errors import CorpusError

_NORMALIZE_EPS = 1e-7


def pad_waves(waves: Sequence[npt.NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
    """Stack clips of different lengths, zeros behind the shorter ones.

    Args:
        waves: B clips of shape (samples,), float32, 16 kHz mono.

    Returns:
        wave_BN float32, and num_samples_B int64.

    Raises:
        ValueError: there is no clip, or one is not a float32 vector.
        CorpusError: clips are too short for a single frame; all of them are named.
    """
    if not waves:
        raise ValueError("pad_waves was given no clip")
    for i, wave in enumerate(waves):
        if wave.ndim != 1 or wave.dtype != np.float32:
            raise ValueError(f"clip {i} is {wave.dtype} {wave.shape}; give a float32 vector")
    lengths = [len(wave) for wave in waves]
    refuse_short(lengths)
    wave_BN = torch.zeros(len(waves), max(lengths))
    for row_N, wave in zip(wave_BN, waves, strict=True):
        row_N[: len(wave)] = torch.from_numpy(wave)
    return wave_BN, torch.tensor(lengths, dtype=torch.int64)


def pad_frames(clips: Sequence[Tensor], num_frames: int) -> Tensor:
    """Stack (T, C) frames of clips to (B, ``num_frames``, C), zeros behind the shorter ones."""
    x_BTC = clips[0].new_zeros(len(clips), num_frames, clips[0].shape[1])
    for row_TC, clip_TC in zip(x_BTC, clips, strict=True):
        row_TC[: len(clip_TC)] = clip_TC
    return x_BTC


def refuse_short(lengths: Sequence[int]) -> None:
    """Raises CorpusError naming the clips that have less than ``MIN_SAMPLES`` samples."""
    short = [f"clip {i} has {n} samples" for i, n in enumerate(lengths) if n < MIN_SAMPLES]
    if short:
        raise CorpusError.of_all(
            f"clips of a batch are too short for one frame of {MIN_SAMPLES} samples (25 ms); "
            f"leave them out (corpus.min_s):",
            short,
        )


def valid_steps(lengths_B: Tensor, num_steps: int) -> Tensor:
    """Boolean mask of shape (B, ``num_steps``): True on the first ``lengths_B[b]`` of row b."""
    steps_T = torch.arange(num_steps, device=lengths_B.device)
    return steps_T < lengths_B[:, None]


def normalize_waves(wave_BN: Tensor, num_samples_B: Tensor) -> Tensor:
    """Zero mean and unit variance over each clip's own samples, padding zero; float32.

    (x - mean) / sqrt(var + 1e-7) with the biased variance, as
    ``Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm`` of transformers.
    """
    valid_BN = valid_steps(num_samples_B, wave_BN.shape[1])
    count_B1 = num_samples_B[:, None]
    mean_B1 = wave_BN.float().masked_fill(~valid_BN, 0.0).sum(1, keepdim=True) / count_B1
    centred_BN = (wave_BN.float() - mean_B1).masked_fill(~valid_BN, 0.0)
    variance_B1 = centred_BN.square().sum(1, keepdim=True) / count_B1
    return centred_BN * torch.rsqrt(variance_B1 + _NORMALIZE_EPS)


class ClipGroupNorm(nn.GroupNorm):
    """GroupNorm over time that takes its statistics from each clip's valid steps alone.

    HuBERT-base normalises its first convolution over time, so zeros behind a clip change every
    frame of it: by up to 2.4 where the mean magnitude is 0.8. Same parameters as
    :class:`torch.nn.GroupNorm`, so state dicts are interchangeable with the stock model's.
    """

    def forward(self, input: Tensor, num_steps: Sequence[int] | None = None) -> Tensor:
        """Normalise ``input`` (B, C, T) over the first ``num_steps[b]`` steps of clip b.

        Steps behind are zero. ``num_steps`` None takes all steps, as the stock layer does. Computed
        in float32 whatever the autocast, returned in the input's dtype.
        """
        with torch.autocast(input.device.type, enabled=False):
            total = input.shape[-1]
            if num_steps is None or min(num_steps) == total:
                return self._normalize(input)
            # A kernel call a clip is as fast as one for the batch, exact where a clip stands
            # alone, and needs none of the full-size temporaries of a masked mean and variance.
            # unbind and cat, not slices of the batch: their gradients are not padded to it.
            clips = [
                F.pad(self._normalize(clip_CT[None, :, :n]), (0, total - n))
                for clip_CT, n in zip(input.unbind(0), num_steps, strict=True)
            ]
            return torch.cat(clips)

    def _normalize(self, x_BCT: Tensor) -> Tensor:
        weight, bias = self.weight.float(), self.bias.float()
        return F.group_norm(x_BCT.float(), self.num_groups, weight, bias, self.eps).to(x_BCT.dtype)
