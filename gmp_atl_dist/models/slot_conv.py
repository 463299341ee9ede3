"""HuBERT's convolutional encoder for a GPU: all clips at once, in slots; inference only.

The function is that of ``conv_encoder.py``. There each clip has tensors of its own, which costs a GPU some
thirty kernels per clip. Here the number of kernels depends on the amount of audio only:

- The first convolution reads stored 16-bit samples. Their scale, the normalisation of the wave and the group
  norm over time differ per clip and channel. They are one multiplication and one addition after it.
- These numbers follow from sums over each clip's patches of ten samples, as in ``conv_encoder.py``. Sums of
  products of 16-bit samples are exact in float64, so their order does not matter.

Shapes: N samples, S slots, R rows of the first convolution, K taps, C channels, B clips, M frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import HubertModel

from gmp_atl_dist.audio import FRAME_HOP_SAMPLES
from gmp_atl_dist.models.conv_encoder import RowConv, activation_in_place, row_norm
from gmp_atl_dist.models.slots import HostPlan, SlotLayout
from gmp_atl_dist.samples import FULL_SCALE
from gmp_atl_dist.transfers import CopyLane, current_lane

_CHUNK_SLOTS = 6400
"""128 s: some 2.1 GB between the first two layers in bf16. A part of 30,000 frames with its free slots is
five chunks. With 6,000 slots it was five and a small one, which takes as many kernels."""
_SUM_SLOTS = 60_000
"""Slots whose patches are in memory at once, 5 kB each."""


class SlotConvPlan:
    """The numbers of a batch that the encoder needs on the device."""

    def __init__(self, layout: SlotLayout, plan: HostPlan, kernel: int, stride: int) -> None:
        self.layout = layout
        self._ids = (
            plan.add(layout.clip_of_slot_S),
            plan.add(layout.steps_of_slot_S(kernel, stride)),
            plan.add(layout.slot_of_frame_M),
            plan.add(np.array(layout.num_samples)),
        )
        self._kernel, self._stride = kernel, stride

    def receive(self, sent: Sequence[Tensor]) -> None:
        self.clip_of_slot_S, self.steps_of_slot_S, self.slot_of_frame_M, self.samples_B = (
            sent[i] for i in self._ids
        )

    @property
    def num_clips(self) -> int:
        return len(self.layout.num_samples)

    def steps_B1(self) -> Tensor:
        """float64: steps of the first convolution in each clip."""
        steps_B = (self.samples_B - self._kernel).div(self._stride, rounding_mode="floor") + 1
        return steps_B.double()[:, None]


class SlotConv:
    """From samples in slots to convolutional features. It copies the weights."""

    def __init__(self, model: HubertModel, dtype: torch.dtype) -> None:
        layers, config = list(model.feature_extractor.conv_layers), model.config
        first = layers[0]
        conv, norm = cast(nn.Conv1d, first.conv), deepcopy(getattr(first, "layer_norm", None))
        self._dtype = dtype
        self._normalize = bool(config.normalize_waveform)
        self._activation = activation_in_place(config.feat_extract_activation)
        self._kernel, self._stride = int(config.conv_kernel[0]), int(config.conv_stride[0])
        # Few products per sample, and samples have 16 bits: full precision.
        self._weight_KC = conv.weight.detach()[:, 0].t().float().contiguous()
        self._bias_C = None if conv.bias is None else conv.bias.detach().float()
        self._group_norm = norm if isinstance(norm, nn.GroupNorm) else None
        self._row_norm = norm if isinstance(norm, nn.LayerNorm) else None
        self._rest = [
            RowConv(cast(nn.Conv1d, x.conv), getattr(x, "layer_norm", None), dtype)
            for x in layers[1:]
        ]
        self._rows_a_slot = FRAME_HOP_SAMPLES // self._stride

    def plan(self, layout: SlotLayout, plan: HostPlan) -> SlotConvPlan:
        return SlotConvPlan(layout, plan, self._kernel, self._stride)

    @torch.no_grad()
    def __call__(self, waves: Sequence[Tensor]) -> list[Tensor]:
        """(T, C) of each clip, in the dtype of the weights; ``waves`` are float32 (N,) on the device."""
        layout = SlotLayout(tuple(map(len, waves)))
        x_MC = self.of_slots(layout.gather(waves), layout, current_lane())
        return list(x_MC.split(layout.num_frames_B.tolist()))

    def of_slots(self, samples_N: Tensor, layout: SlotLayout, lane: CopyLane) -> Tensor:
        """As :meth:`rows`, with a plan of its own, which is sent on ``lane``."""
        plan = HostPlan()
        conv_plan = self.plan(layout, plan)
        conv_plan.receive(plan.send(lane))
        return self.rows(samples_N, conv_plan)

    @torch.no_grad()
    def rows(self, samples_N: Tensor, plan: SlotConvPlan) -> Tensor:
        """(M, C), in the dtype of the weights, from int16 samples or floats in [-1, 1)."""
        gain_BC, shift_BC = self._gain_and_shift(samples_N, plan)
        slots = plan.layout.num_slots
        chunks: list[Tensor] = []
        for first in range(0, slots, _CHUNK_SLOTS):
            count = min(_CHUNK_SLOTS, slots - first)
            clip_S = plan.clip_of_slot_S[first : first + count + 1]
            x_RC = self._first(samples_N, first, clip_S, gain_BC, shift_BC)
            for layer in self._rest:
                x_RC = layer(x_RC, self._activation)
            chunks.append(x_RC[:count])
        x_SC = chunks[0] if len(chunks) == 1 else torch.cat(chunks)
        return x_SC.index_select(0, plan.slot_of_frame_M)

    def _first(
        self, samples_N: Tensor, first: int, clip_S: Tensor, gain_BC: Tensor, shift_BC: Tensor
    ) -> Tensor:
        """The first convolution of some slots and of the slot after them, which their last frame sees."""
        slots, channels = len(clip_S), self._weight_KC.shape[1]
        patches_RK = self._patches(samples_N, first, slots).flatten(0, 1).to(torch.float32)
        y_SRC = (patches_RK @ self._weight_KC).view(slots, self._rows_a_slot, channels)
        gain_S1C, shift_S1C = (
            (x if len(x) == 1 else x.index_select(0, clip_S))[:, None] for x in (gain_BC, shift_BC)
        )
        # With layer norm the row stays in full precision until it is normalised.
        out = y_SRC if self._row_norm is not None else torch.empty_like(y_SRC, dtype=self._dtype)
        torch.addcmul(shift_S1C, y_SRC, gain_S1C, out=out)
        x_RC = out.view(slots * self._rows_a_slot, channels)
        if self._row_norm is not None:
            x_RC = row_norm(x_RC, self._row_norm).to(self._dtype)
        return self._activation(x_RC)

    def _patches(self, samples_N: Tensor, first: int, slots: int) -> Tensor:
        """(slots, R, K): the samples that each step of the first convolution sees; a view."""
        return samples_N.as_strided(
            (slots, self._rows_a_slot, self._kernel),
            (FRAME_HOP_SAMPLES, self._stride, 1),
            samples_N.storage_offset() + first * FRAME_HOP_SAMPLES,
        )

    def _gain_and_shift(self, samples_N: Tensor, plan: SlotConvPlan) -> tuple[Tensor, Tensor]:
        """float32 (B, C), or (1, C) where clips do not differ: the layer is ``gain * product + shift``."""
        weight_KC = self._weight_KC.double()
        bias_1C = torch.zeros_like(weight_KC[:1]) if self._bias_C is None else self._bias_C[None]
        unit = 1.0 if samples_N.is_floating_point() else 1.0 / FULL_SCALE
        mean_B1 = weight_KC.new_zeros(1, 1)
        gain_B1 = torch.full_like(mean_B1, unit)
        if self._normalize:
            # As models.padding.normalize_waves: zero mean and unit variance.
            mean_B1, variance_B1 = self._wave_moments(samples_N, plan)
            gain_B1 = unit * torch.rsqrt(variance_B1 * unit**2 + 1e-7)
        norm = self._group_norm
        if norm is None:
            shift_BC = bias_1C - gain_B1 * mean_B1 * weight_KC.sum(0)
            return gain_B1.expand(-1, weight_KC.shape[1]).float(), shift_BC.float()
        # The mean of the wave and the bias are part of the mean over time, which the norm subtracts.
        mean_BK, covariance_BKK = self._patch_moments(samples_N, plan)
        variance_BC = ((covariance_BKK @ weight_KC) * weight_KC).sum(1).clamp_min(0.0)
        scale_C = norm.weight.detach().double()
        gain_BC = gain_B1 * scale_C * torch.rsqrt(gain_B1**2 * variance_BC + norm.eps)
        shift_BC = norm.bias.detach().double() - gain_BC * (mean_BK @ weight_KC)
        return gain_BC.float(), shift_BC.float()

    def _wave_moments(self, samples_N: Tensor, plan: SlotConvPlan) -> tuple[Tensor, Tensor]:
        """float64 (B, 1): mean and variance of each clip's samples. Slots hold zeros behind a clip."""
        sums_B2 = torch.zeros(plan.num_clips, 2, dtype=torch.float64, device=samples_N.device)
        x_SN = samples_N.view(-1, FRAME_HOP_SAMPLES)[:-1].double()
        sums_S2 = torch.stack([x_SN.sum(1), x_SN.square().sum(1)], dim=1)
        sums_B2.index_add_(0, plan.clip_of_slot_S, sums_S2)
        mean_B2 = sums_B2 / plan.samples_B[:, None]
        mean_B1 = mean_B2[:, :1]
        return mean_B1, (mean_B2[:, 1:] - mean_B1.square()).clamp_min(0.0)

    def _patch_moments(self, samples_N: Tensor, plan: SlotConvPlan) -> tuple[Tensor, Tensor]:
        """float64 (B, K) and (B, K, K): mean and covariance of each clip's patches."""
        taps, device = self._kernel, samples_N.device
        sums_BX = torch.zeros(
            plan.num_clips, taps + taps * taps, dtype=torch.float64, device=device
        )
        step_R = torch.arange(self._rows_a_slot, device=device)
        for first in range(0, plan.layout.num_slots, _SUM_SLOTS):
            steps_S1 = plan.steps_of_slot_S[first : first + _SUM_SLOTS, None]
            patches_SRK = self._patches(samples_N, first, len(steps_S1)).double()
            patches_SRK.mul_((step_R < steps_S1)[:, :, None])
            products_SKK = patches_SRK.transpose(1, 2) @ patches_SRK
            sums_SX = torch.cat([patches_SRK.sum(1), products_SKK.flatten(1)], dim=1)
            sums_BX.index_add_(0, plan.clip_of_slot_S[first : first + _SUM_SLOTS], sums_SX)
        means_BX = sums_BX / plan.steps_B1()
        mean_BK = means_BX[:, :taps]
        second_BKK = means_BX[:, taps:].view(-1, taps, taps)
        return mean_BK, second_BKK - mean_BK[:, :, None] * mean_BK[:, None]
