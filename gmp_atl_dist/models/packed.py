"""HuBERT's frame features without padding: clips are packed one after another; inference only.

``PackedHubert`` is for a CPU. ``packed_slots.py`` has the same encoder for a GPU, with all clips at once.

It computes the same function as ``forward_frames`` without masks, to rounding (1e-5), at the rate of the
machine's matrix products. Everything but attention and the positional convolution works on one frame at a
time. So clips of any lengths share one large product, and no padding is computed. On a CPU with MKL's strict
reproducibility (``device.pin_threads``) a clip's features have the same bits in every batch.

Everything is in float32.

Shapes: M frames of all clips in one row, T frames, D hidden, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import HubertModel

from gmp_atl_dist.models.conv_encoder import ConvEncoder
from gmp_atl_dist.models.packed_attention import each_alone
from gmp_atl_dist.models.packed_encoder import PackedEncoder
from gmp_atl_dist.models.positional import PositionalConv
from gmp_atl_dist.models.windows import Window, windows

_FFN_ROWS = 512
"""Rows of the feed-forward layer that a CPU computes at a time, so that they stay in its cache."""


class PackedHubert:
    """Hidden states of chosen layers. Layers above the highest of them are not computed.

    Args:
        model: in ``eval()`` on the device that is to be used. Its weights are copied.
        layers: 0 to the number of layers, as in :class:`gmp_atl_dist.models.backbone.FrameOutput`.
        window_frames: attention sees longer clips in overlapping windows. Everything below attention sees the
            whole clip, so the number and the alignment of frames are those of one pass.
        context_frames: frames on either side of the part of a window that is kept.

    Raises:
        ModelError: a layer does not exist, or the model has attention adapters.
    """

    def __init__(
        self, model: HubertModel, layers: Sequence[int], *, window_frames: int, context_frames: int
    ) -> None:
        self._encoder = PackedEncoder(model, layers, torch.float32, _FFN_ROWS)
        self._window_frames, self._context_frames = window_frames, context_frames
        self._conv = ConvEncoder(model, torch.float32)
        self._position = PositionalConv(model)

    @torch.inference_mode()
    def __call__(self, waves: Sequence[Tensor], most_frames: int) -> list[dict[int, Tensor]]:
        """float32 (T, D) by layer for each clip.

        Args:
            waves: float32 (N,) each, 16 kHz mono in [-1, 1), on the device.
            most_frames: in one forward pass of the encoder; a single window may be longer.
        """
        x_MD, counts = self._embed(waves)
        jobs = [
            (clip, window)
            for clip, count in enumerate(counts)
            for window in windows(count, self._window_frames, self._context_frames)
        ]
        firsts = [sum(counts[:clip]) for clip in range(len(counts))]
        kept: list[dict[int, list[Tensor]]] = [
            {i: [] for i in self._encoder.layers} for _ in counts
        ]
        for batch in window_batches(jobs, most_frames):
            rows = [x_MD[firsts[c] + w.start : firsts[c] + w.stop] for c, w in batch]
            packed = rows[0] if len(rows) == 1 else torch.cat(rows)
            lengths = [w.stop - w.start for _, w in batch]
            for layer, y_MD in self._encoder.encode(packed, each_alone(lengths)):
                for (clip, w), y_TD in zip(batch, y_MD.split(lengths), strict=True):
                    kept_TD = y_TD[w.keep_start - w.start : w.keep_stop - w.start]
                    kept[clip][layer].append(kept_TD)
        return [
            {
                layer: parts[0] if len(parts) == 1 else torch.cat(parts)
                for layer, parts in by.items()
            }
            for by in kept
        ]

    def _embed(self, waves: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
        """The input of the encoder's first layer, packed, and the number of frames of each clip."""
        features = self._conv(waves)
        counts = [len(x) for x in features]
        x_MD = self._encoder.project(torch.cat(features))
        return self._encoder.add_positions(x_MD, self._position(x_MD, counts)), counts


def window_batches(
    jobs: list[tuple[int, Window]], most_frames: int
) -> Iterator[list[tuple[int, Window]]]:
    """Windows in order, as many per batch as fit."""
    batch: list[tuple[int, Window]] = []
    held = 0
    for job in jobs:
        frames = job[1].stop - job[1].start
        if batch and held + frames > most_frames:
            yield batch
            batch, held = [], 0
        batch.append(job)
        held += frames
    if batch:
        yield batch
