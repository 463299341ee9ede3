"""MFCC for a GPU: those of ``mfcc.py``, of all recordings of a batch at once.

Values are computed in float64 from the same tables, so they differ from ``mfcc.py`` by rounding to float32.

Shape suffixes: N samples in slots, F frames of 10 ms, M of 20 ms, W samples of a window, C cepstra, D values
of a frame.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gmp_atl_dist.inference.mfcc import (
    DIFFERENCE_REACH_FRAMES,
    FFT_SAMPLES,
    HOP_SAMPLES,
    KEPT_EVERY,
    LEAST_ENERGY,
    PREEMPHASIS,
    WINDOW_SAMPLES,
    cosine_table,
    mel_bands,
    povey_window,
)
from gmp_atl_dist.models.slots import HostPlan, SlotLayout
from gmp_atl_dist.samples import FULL_SCALE
from gmp_atl_dist.transfers import CopyLane

MFCC_LAYER = 0
"""MFCC are stored as features of this layer; HuBERT's layers begin with 1."""
_CHUNK_FRAMES = 12_000
"""120 s: frames whose spectra are in memory at a time, some 150 MB."""


class DeviceMfcc:
    """MFCC as a :class:`gmp_atl_dist.models.slots.SlotModel`: float32 (M, D) of :data:`MFCC_LAYER`."""

    def __init__(self, device: torch.device) -> None:
        self._window_W, self._bands_BM, self._cosines_MC = (
            torch.from_numpy(table).to(device)
            for table in (povey_window(), mel_bands(), cosine_table())
        )

    @torch.inference_mode()
    def frames(
        self, samples_N: Tensor, layout: SlotLayout, most_frames: int, lane: CopyLane
    ) -> dict[int, Tensor]:
        """``samples_N`` are as stored, int16, or floats in [-1, 1)."""
        plan = HostPlan()
        own = FramePlan(layout, plan)
        row_F, first_F, last_F, kept_M = own.receive(plan.send(lane))
        cepstra_FC = torch.cat(
            [self._cepstra(samples_N, rows) for rows in row_F.split(_CHUNK_FRAMES)]
        )
        slope_FC = _differences(cepstra_FC, first_F, last_F)
        x_FD = torch.cat([cepstra_FC, slope_FC, _differences(slope_FC, first_F, last_F)], dim=1)
        return {MFCC_LAYER: x_FD.index_select(0, kept_M).float()}

    def _cepstra(self, samples_N: Tensor, row_F: Tensor) -> Tensor:
        rows = (len(samples_N) - WINDOW_SAMPLES) // HOP_SAMPLES + 1
        all_XW = samples_N.as_strided(
            (rows, WINDOW_SAMPLES), (HOP_SAMPLES, 1), samples_N.storage_offset()
        )
        x_FW = all_XW.index_select(0, row_F).double()
        if not samples_N.is_floating_point():
            x_FW /= FULL_SCALE
        x_FW -= x_FW.mean(dim=1, keepdim=True)
        # Within a frame: its first sample counts as the one before it.
        before_FW = torch.cat([x_FW[:, :1], x_FW[:, :-1]], dim=1)
        x_FW = (x_FW - PREEMPHASIS * before_FW) * self._window_W
        power_FB = torch.fft.rfft(x_FW, FFT_SAMPLES, dim=1).abs().square()
        energy_FM = power_FB @ self._bands_BM
        return energy_FM.clamp_min(LEAST_ENERGY).log() @ self._cosines_MC


class FramePlan:
    """Which samples each frame of 10 ms reads, the ends of its recording, and which frames are kept."""

    def __init__(self, layout: SlotLayout, plan: HostPlan) -> None:
        samples_B = np.array(layout.num_samples)
        counts_B = np.maximum((samples_B - WINDOW_SAMPLES) // HOP_SAMPLES + 1, 0)
        firsts_B = np.cumsum(counts_B) - counts_B
        first_F, last_F = (np.repeat(x, counts_B) for x in (firsts_B, firsts_B + counts_B - 1))
        within_F = np.arange(len(first_F)) - first_F
        # A slot is a frame of 20 ms, and begins with one of 10 ms.
        row_F = np.repeat(layout.first_slot_B * KEPT_EVERY, counts_B) + within_F
        kept_M = np.flatnonzero(within_F % KEPT_EVERY == 0)
        self._ids = tuple(plan.add(x) for x in (row_F, first_F, last_F, kept_M))

    def receive(self, sent: list[Tensor]) -> list[Tensor]:
        """Rows of samples, first frames, last frames, kept frames; int32 on the device."""
        return [sent[i] for i in self._ids]


def _differences(x_FC: Tensor, first_F: Tensor, last_F: Tensor) -> Tensor:
    """As :func:`gmp_atl_dist.inference.mfcc.differences`, within each recording."""
    frame_F = torch.arange(len(x_FC), device=x_FC.device, dtype=first_F.dtype)
    slope_FC = torch.zeros_like(x_FC)
    for lag in range(1, DIFFERENCE_REACH_FRAMES + 1):
        after_F, before_F = (frame_F + lag).minimum(last_F), (frame_F - lag).maximum(first_F)
        slope_FC += lag * (x_FC.index_select(0, after_F) - x_FC.index_select(0, before_F))
    return slope_FC / (2 * sum(lag * lag for lag in range(1, DIFFERENCE_REACH_FRAMES + 1)))
