"""Recordings to the device: the stored 16-bit samples of a batch as one copy.

Shape: N samples of all recordings in slots (``models/slots.py``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gmp_atl_dist.models.slots import SlotLayout
from gmp_atl_dist.samples import FULL_SCALE
from gmp_atl_dist.transfers import CopyLane


def send_clips(clips: Sequence[np.ndarray], lane: CopyLane) -> tuple[SlotLayout, Tensor]:
    """Where int16 ``clips`` lie, and int16 (N,) on the device."""
    layout = SlotLayout(tuple(map(len, clips)))
    staged_N = lane.host(layout.num_samples_N, dtype=torch.int16)
    layout.place(clips, staged_N.numpy())
    return layout, lane.send(staged_N)


def as_waves(layout: SlotLayout, samples_N: Tensor) -> list[Tensor]:
    """float32 of each recording in [-1, 1), as ``audio.pcm16_to_float``; each in memory of its own."""
    return [clip_N.float() / FULL_SCALE for clip_N in layout.clips_of(samples_N)]
