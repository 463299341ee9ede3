"""Clips one behind another in one row of frames, as training computes them: no frame is padding.

Shapes: B clips, M frames of all clips in one row, T frames of a clip, D any width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from gmp_atl_dist.models.padding import valid_steps


@dataclass(frozen=True)
class Packing:
    """How many frames each clip has, and the seed of its dropout.

    Attributes:
        num_frames: of each clip.
        seeds: of each clip's dropout. A clip's dropout follows from its seed alone, not from the clips that
            it is packed with.
    """

    num_frames: tuple[int, ...]
    seeds: tuple[int, ...]

    @cached_property
    def rows(self) -> tuple[slice, ...]:
        """The rows of each clip."""
        ends = [0]
        for count in self.num_frames:
            ends.append(ends[-1] + count)
        return tuple(map(slice, ends, ends[1:]))

    @property
    def total(self) -> int:
        """M."""
        return sum(self.num_frames)


class PackedFrames(NamedTuple):
    """What :meth:`gmp_atl_dist.models.backbone.SpeechBackbone.packed_frames` returns.

    Attributes:
        hidden: (M, D) per wanted layer, see :class:`gmp_atl_dist.models.backbone.FrameOutput`.
        num_frames: of each clip.
        conv_features_MC: output of the convolutional encoder, before norm and projection.
    """

    hidden: dict[int, Tensor]
    num_frames: tuple[int, ...]
    conv_features_MC: Tensor

    @property
    def valid_BT(self) -> Tensor:
        """True on a clip's own frames, for rows that :meth:`padded` has padded."""
        device = self.conv_features_MC.device
        return valid_steps(torch.tensor(self.num_frames, device=device), max(self.num_frames))

    def padded(self, layer: int) -> Tensor:
        """(B, T, D) of a layer with zeros behind the shorter clips, for a head that reads whole clips."""
        return pad_rows(self.hidden[layer], self.num_frames)


def pad_rows(x_MD: Tensor, num_frames: Sequence[int]) -> Tensor:
    """(B, T, D) with zeros behind the shorter clips."""
    return pad_sequence(list(x_MD.split(list(num_frames))), batch_first=True)
