"""HuBERT's frame features for a GPU: all clips of a batch at once, in few kernels; inference only.

The function is that of ``packed.py``. There each clip and window is a call of its own, so that a clip has the
same bits in every batch. Here the number of kernels depends on the layers and the amount of audio only.
Nothing waits for the device: what the host knows about a batch is sent as one copy before the first kernel.

Precision: with half precision the products are in bfloat16, the positional convolution in float16, and
residual sums, norms, the first convolution and the softmax in float32.

Shapes: M frames of all clips in one row, R rows of all windows of a pass, T frames of a clip, D hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import HubertModel

from gmp_atl_dist.device import use_bf16
from gmp_atl_dist.models.packed import window_batches
from gmp_atl_dist.models.packed_attention import PlannedAttention
from gmp_atl_dist.models.packed_encoder import PackedEncoder
from gmp_atl_dist.models.slot_conv import SlotConv
from gmp_atl_dist.models.slot_positional import SlotPositionalConv
from gmp_atl_dist.models.slots import HostPlan, SlotLayout
from gmp_atl_dist.models.windows import windows
from gmp_atl_dist.transfers import CopyLane, current_lane


class SlotHubert:
    """Hidden states of chosen layers. Layers above the highest of them are not computed.

    Args:
        model: in ``eval()`` on the device that is to be used. Its weights are copied.
        layers: 0 to the number of layers, as in :class:`gmp_atl_dist.models.backbone.FrameOutput`.
        window_frames: attention sees longer clips in overlapping windows. Everything below attention sees the
            whole clip, so the number and the alignment of frames are those of one pass.
        context_frames: frames on either side of the part of a window that is kept.
        half: products in half precision; None: where the device has it.
        flash: attention of variable lengths in one kernel; None: where the device has it.

    Raises:
        ModelError: a layer does not exist, or the model has attention adapters.
    """

    def __init__(
        self,
        model: HubertModel,
        layers: Sequence[int],
        *,
        window_frames: int,
        context_frames: int,
        half: bool | None = None,
        flash: bool | None = None,
    ) -> None:
        half = use_bf16() if half is None else half
        self._dtype = torch.bfloat16 if half else torch.float32
        self._flash = flash
        self._window_frames, self._context_frames = window_frames, context_frames
        self._encoder = PackedEncoder(model, layers, self._dtype)
        self._conv = SlotConv(model, self._dtype)
        self._position = SlotPositionalConv(model, torch.float16 if half else torch.float32)

    @torch.inference_mode()
    def __call__(self, waves: Sequence[Tensor], most_frames: int) -> list[dict[int, Tensor]]:
        """float32 (T, D) by layer for each float32 wave (N,) on the device; see ``FrameModel``."""
        layout = SlotLayout(tuple(map(len, waves)))
        frames = self.frames(layout.gather(waves), layout, most_frames, current_lane())
        counts = layout.num_frames_B.tolist()
        by_clip = {layer: x_MD.split(counts) for layer, x_MD in frames.items()}
        return [{layer: x[clip] for layer, x in by_clip.items()} for clip in range(len(counts))]

    @torch.inference_mode()
    def frames(
        self, samples_N: Tensor, layout: SlotLayout, most_frames: int, lane: CopyLane
    ) -> dict[int, Tensor]:
        """float32 (M, D) by layer; see :class:`gmp_atl_dist.models.slots.SlotModel`."""
        plan = HostPlan()
        conv_plan = self._conv.plan(layout, plan)
        position_ids = self._position.plan(layout.num_frames_B, plan)
        passes = self._passes(layout, most_frames, plan)
        sent = plan.send(lane)
        conv_plan.receive(sent)

        x_MD = self._encoder.project(self._conv.rows(samples_N, conv_plan))
        x_MD = self._encoder.add_positions(x_MD, self._position(x_MD, position_ids, sent))
        kept: dict[int, list[Tensor]] = {layer: [] for layer in self._encoder.layers}
        for one in passes:
            one.attention.receive(sent)
            x_RD = x_MD if one.read is None else x_MD.index_select(0, sent[one.read])
            for layer, y_RD in self._encoder.encode(x_RD, one.attention):
                kept[layer].append(
                    y_RD if one.keep is None else y_RD.index_select(0, sent[one.keep])
                )
        return {i: x[0] if len(x) == 1 else torch.cat(x) for i, x in kept.items()}

    def _passes(self, layout: SlotLayout, most_frames: int, plan: HostPlan) -> list[_Pass]:
        """The passes of the encoder, in the order of the frames that they keep."""
        counts = layout.num_frames_B.tolist()
        firsts = np.cumsum([0, *counts]).tolist()
        jobs = [
            (clip, window)
            for clip, count in enumerate(counts)
            for window in windows(count, self._window_frames, self._context_frames)
        ]
        passes: list[_Pass] = []
        for batch in window_batches(jobs, most_frames):
            lengths = [w.stop - w.start for _, w in batch]
            attention = PlannedAttention(lengths, plan, dtype=self._dtype, flash=self._flash)
            read = np.concatenate([np.arange(w.start, w.stop) + firsts[c] for c, w in batch])
            kept = np.concatenate(
                [_kept(w.start, w.stop, w.keep_start, w.keep_stop) for _, w in batch]
            )
            # Compared row by row: windows that overlap may have as many rows as there are frames.
            everything = np.array_equal(read, np.arange(firsts[-1]))
            passes.append(
                _Pass(
                    attention,
                    None if everything else plan.add(read),
                    None if kept.all() else plan.add(np.flatnonzero(kept)),
                )
            )
        return passes


@dataclass(frozen=True)
class _Pass:
    """One pass of the encoder: which arrays hold the rows to read and the rows to keep; None: all rows."""

    attention: PlannedAttention
    read: int | None
    keep: int | None


def _kept(start: int, stop: int, keep_start: int, keep_stop: int) -> np.ndarray:
    """Which rows of a window are kept."""
    frames = np.arange(start, stop)
    return (frames >= keep_start) & (frames < keep_stop)
