"""Clips of different lengths in one batch, whose results do not depend on the padding.

Shapes: B batch, N samples, T frames or time steps, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gmp_atl_dist.audio import MIN_SAMPLES, num_frames
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
        CorpusError: clips are too short for a single frame; names all of them.
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
    """Raises CorpusError, with the names of all clips that have fewer than ``MIN_SAMPLES`` samples."""
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
    """Zero mean and unit variance over each clip's own samples, padding zero; float32, or the waves' float64.

    (x - mean) / sqrt(var + 1e-7) with the biased variance, as
    ``Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm`` of transformers.
    """
    valid_BN = valid_steps(num_samples_B, wave_BN.shape[1])
    count_B1 = num_samples_B[:, None]
    wave_BN = _at_least_fp32(wave_BN)
    mean_B1 = wave_BN.masked_fill(~valid_BN, 0.0).sum(1, keepdim=True) / count_B1
    centred_BN = (wave_BN - mean_B1).masked_fill(~valid_BN, 0.0)
    variance_B1 = centred_BN.square().sum(1, keepdim=True) / count_B1
    return centred_BN * torch.rsqrt(variance_B1 + _NORMALIZE_EPS)


def normalized_wave(wave_N: Tensor) -> Tensor:
    """As :func:`normalize_waves`, of one clip."""
    centred_N = wave_N - wave_N.mean()
    return centred_N * torch.rsqrt(centred_N.square().mean() + _NORMALIZE_EPS)


class ClipGroupNorm(nn.GroupNorm):
    """GroupNorm over time whose statistics come from each clip's valid steps alone.

    The base models of wav2vec 2.0's family normalise their first convolution over time. With the stock layer,
    zeros behind a clip change every frame of it: by up to 2.4 where the mean magnitude is 0.8. Parameters
    are those of :class:`torch.nn.GroupNorm`, so state dicts are interchangeable with the stock model's.
    """

    def forward(self, input: Tensor, num_steps: Sequence[int] | None = None) -> Tensor:
        """Normalise ``input`` (B, C, T) over the first ``num_steps[b]`` steps of clip b.

        Steps behind them become zero. With ``num_steps`` None all steps are valid, as in the stock layer.
        Computes in float32 whatever the autocast, and returns the input's dtype.
        """
        with torch.autocast(input.device.type, enabled=False):
            total = input.shape[-1]
            if num_steps is None or min(num_steps) == total:
                return self._normalize(input)
            # One kernel call per clip is as fast as one per batch, exact where a clip is alone, and needs
            # none of the full-size temporaries of a masked mean and variance.
            # unbind and cat, not slices of the batch: their gradients are not padded to the batch.
            clips = [
                F.pad(self._normalize(clip_CT[None, :, :n]), (0, total - n))
                for clip_CT, n in zip(input.unbind(0), num_steps, strict=True)
            ]
            return torch.cat(clips)

    def _normalize(self, x_BCT: Tensor) -> Tensor:
        weight, bias = _at_least_fp32(self.weight), _at_least_fp32(self.bias)
        normed_BCT = F.group_norm(_at_least_fp32(x_BCT), self.num_groups, weight, bias, self.eps)
        return normed_BCT.to(x_BCT.dtype)


def _at_least_fp32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def make_group_norm_exact(conv_layers: nn.Module) -> None:
    """Replace the first convolution's group norm, if it has one, by :class:`ClipGroupNorm`.

    Args:
        conv_layers: ``feature_extractor.conv_layers`` of a model of wav2vec 2.0's family. The weights must be
            loaded after this call.
    """
    first = cast(Any, next(conv_layers.children()))
    norm = getattr(first, "layer_norm", None)
    if isinstance(norm, nn.GroupNorm):
        first.layer_norm = ClipGroupNorm(norm.num_groups, norm.num_channels, eps=norm.eps)


def padding_exact_conv(conv_layers: nn.Module, wave_BN: Tensor, lengths: Sequence[int]) -> Tensor:
    """(B, T, C): the convolutional layers one by one, with the clips' lengths for the group norm.

    Call :func:`make_group_norm_exact` on the model before. The convolutions have no padding of their own,
    and every other norm is over channels, so a clip's own frames depend on its own samples alone.
    """
    layers: Iterable[nn.Module] = conv_layers.children()
    first, *rest = layers
    stage = cast(Any, first)
    x_BCT = wave_BN[:, None].to(stage.conv.weight.dtype)
    if isinstance(getattr(stage, "layer_norm", None), ClipGroupNorm):
        kernel, stride = stage.conv.kernel_size[0], stage.conv.stride[0]
        num_steps = [(n - kernel) // stride + 1 for n in lengths]
        x_BCT = stage.activation(stage.layer_norm(stage.conv(x_BCT), num_steps))
    else:
        x_BCT = stage(x_BCT)
    for layer in rest:
        x_BCT = layer(x_BCT)
    return x_BCT.transpose(1, 2)


def check_shapes(wave_BN: Tensor, lengths: list[int], mask_BT: Tensor | None) -> None:
    """Of waves (B, N), or outputs of the convolutional encoder (B, T, C), and a mask of frames.

    Raises:
        CorpusError: a clip is too short for one frame.
        ValueError: they do not fit together.
    """
    if wave_BN.ndim not in (2, 3) or wave_BN.shape[0] != len(lengths):
        raise ValueError(f"waves of shape {tuple(wave_BN.shape)} with {len(lengths)} lengths")
    refuse_short(lengths)
    steps = wave_BN.shape[1]
    if wave_BN.ndim == 3 and steps != num_frames(max(lengths)):
        raise ValueError(f"{steps} convolutional frames for a clip of {max(lengths)} samples")
    if wave_BN.ndim == 2 and max(lengths) > steps:
        raise ValueError(f"a clip of {max(lengths)} samples in a batch of {steps}")
    expected = (len(lengths), steps if wave_BN.ndim == 3 else num_frames(steps))
    if mask_BT is not None and tuple(mask_BT.shape) != expected:
        raise ValueError(f"mask_BT has shape {tuple(mask_BT.shape)}; the batch needs {expected}")
