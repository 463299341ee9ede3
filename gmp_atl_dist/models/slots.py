"""Clips one after another in slots of one frame's hop, so that a GPU computes all of them at once.

Clip b begins at the first sample of a slot. Frame t of it is computed from slot ``first_slot + t`` and the
one after it. After each clip at least one slot holds no frame, because it would see two clips. So one strided
convolution over all slots gives the frames of all clips. The frames of the free slots are not read.

Shapes: N samples in all slots, B clips, S slots, M frames of all clips in one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from gmp_atl_dist.audio import FRAME_HOP_SAMPLES, num_frames
from gmp_atl_dist.transfers import CopyLane, send_array


@dataclass(frozen=True)
class SlotLayout:
    """Where the samples and the frames of clips are.

    Attributes:
        num_samples: of each clip, at least one frame's.
    """

    num_samples: tuple[int, ...]

    @cached_property
    def num_frames_B(self) -> np.ndarray:
        return np.array([num_frames(n) for n in self.num_samples], np.int64)

    @cached_property
    def _slots_B(self) -> np.ndarray:
        samples_B = np.array(self.num_samples, np.int64)
        return np.maximum(self.num_frames_B + 1, -(-samples_B // FRAME_HOP_SAMPLES))

    @cached_property
    def first_slot_B(self) -> np.ndarray:
        return np.cumsum(self._slots_B) - self._slots_B

    @property
    def num_slots(self) -> int:
        """S, without the two spare slots behind the last clip, which the last frames' convolutions read."""
        return int(self._slots_B.sum())

    @property
    def num_samples_N(self) -> int:
        """N, with the spare slots."""
        return (self.num_slots + 2) * FRAME_HOP_SAMPLES

    def place(self, clips: Sequence[np.ndarray], out_N: np.ndarray) -> None:
        """Write the clips to their slots, and zeros between them."""
        end = 0
        for clip_N, slot in zip(clips, self.first_slot_B.tolist(), strict=True):
            start = slot * FRAME_HOP_SAMPLES
            out_N[end:start] = 0
            end = start + len(clip_N)
            out_N[start:end] = clip_N
        out_N[end:] = 0

    def gather(self, waves: Sequence[Tensor]) -> Tensor:
        """(N,) of waves that are on the device already."""
        gaps_B = np.diff(self.first_slot_B * FRAME_HOP_SAMPLES, append=self.num_samples_N)
        zeros_N = waves[0].new_zeros(int(max(gaps_B - self.num_samples)))
        pieces = [
            x
            for wave, gap in zip(waves, gaps_B.tolist(), strict=True)
            for x in (wave, zeros_N[: gap - len(wave)])
        ]
        return torch.cat(pieces)

    def clips_of(self, samples_N: Tensor) -> list[Tensor]:
        """Views of each clip's own samples."""
        starts = (self.first_slot_B * FRAME_HOP_SAMPLES).tolist()
        return [
            samples_N[start : start + n] for start, n in zip(starts, self.num_samples, strict=True)
        ]

    @cached_property
    def clip_of_slot_S(self) -> np.ndarray:
        """The clip of each slot, and of one spare slot: (S + 1,)."""
        clips = np.repeat(np.arange(len(self.num_samples)), self._slots_B)
        return np.append(clips, len(self.num_samples) - 1)

    def steps_of_slot_S(self, kernel: int, stride: int) -> np.ndarray:
        """How many steps of a first convolution begin in each slot and end within its clip: (S + 1,)."""
        steps_B = (np.array(self.num_samples) - kernel) // stride + 1
        a_slot = FRAME_HOP_SAMPLES // stride
        within_S = np.arange(self.num_slots) - self.first_slot_B[self.clip_of_slot_S[:-1]]
        left_S = steps_B[self.clip_of_slot_S[:-1]] - within_S * a_slot
        return np.append(np.clip(left_S, 0, a_slot), 0)

    @cached_property
    def slot_of_frame_M(self) -> np.ndarray:
        counts_B = self.num_frames_B
        shift_B = self.first_slot_B - (np.cumsum(counts_B) - counts_B)
        return np.arange(int(counts_B.sum())) + np.repeat(shift_B, counts_B)


class HostPlan:
    """Whole numbers about a batch that the device needs. They are sent as one copy."""

    def __init__(self) -> None:
        self._arrays: list[np.ndarray] = []

    def add(self, numbers: np.ndarray) -> int:
        """The number of this array in what :meth:`send` returns."""
        self._arrays.append(np.asarray(numbers, np.int32))
        return len(self._arrays) - 1

    def send(self, lane: CopyLane) -> list[Tensor]:
        """int32 tensors on the device, in the shapes of the arrays."""
        flat = np.concatenate([x.ravel() for x in self._arrays])
        sent = send_array(lane, flat).split([x.size for x in self._arrays])
        return [x.view(a.shape) for x, a in zip(sent, self._arrays, strict=True)]


@runtime_checkable
class SlotModel(Protocol):
    """A frame model that computes all clips of a batch at once."""

    def frames(
        self, samples_N: Tensor, layout: SlotLayout, most_frames: int, lane: CopyLane
    ) -> dict[int, Tensor]:
        """float32 (M, D) by layer, the frames of all clips one after another.

        Args:
            samples_N: in slots on the device; int16 as stored, or floats in [-1, 1).
            layout: of the samples.
            most_frames: in one pass of the encoder; a single window may be longer.
            lane: on which plans are sent to the device. The caller works on it.
        """
        ...
