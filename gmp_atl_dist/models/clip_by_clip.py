"""Frames of any backbone at inference, one window at a time, so that there is no padding.

A backbone whose speed matters overrides ``SpeechBackbone.frame_model``, as HuBERT does
(``models/packed.py``).

Shapes: N samples, T frames, C channels of the convolutional encoder, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from gmp_atl_dist.audio import FRAME_HOP_SAMPLES, MIN_SAMPLES
from gmp_atl_dist.device import autocast
from gmp_atl_dist.models.windows import windows


class ClipByClip:
    """Hidden states of chosen layers. Everything above the convolutional encoder sees one window alone.

    Args:
        front_end: the convolutional encoder: (T, C) for each wave (N,).
        encode: (1, T, D) by layer, from (1, T, C), the number of samples (1,), and the layers.
        layers: 0 to the number of layers, as in :class:`gmp_atl_dist.models.backbone.FrameOutput`.
        window_frames: longer clips are cut into overlapping windows.
        context_frames: on either side of what is kept of a window.
    """

    def __init__(
        self,
        front_end: Callable[[Sequence[Tensor]], list[Tensor]],
        encode: Callable[[Tensor, Tensor, Sequence[int]], Mapping[int, Tensor]],
        layers: Sequence[int],
        *,
        window_frames: int,
        context_frames: int,
    ) -> None:
        self._front_end = front_end
        self._encode = encode
        self._layers = sorted(set(layers))
        self._window_frames, self._context_frames = window_frames, context_frames

    @torch.inference_mode()
    def __call__(self, waves: Sequence[Tensor], most_frames: int) -> list[dict[int, Tensor]]:
        """float32 (T, D) by layer for each wave (N,). ``most_frames`` is not needed."""
        return [self._clip(x_TC) for x_TC in self._front_end(waves)]

    def _clip(self, x_TC: Tensor) -> dict[int, Tensor]:
        kept: dict[int, list[Tensor]] = {layer: [] for layer in self._layers}
        for w in windows(len(x_TC), self._window_frames, self._context_frames):
            num_samples_1 = torch.tensor([MIN_SAMPLES + (w.stop - w.start - 1) * FRAME_HOP_SAMPLES])
            with autocast():
                hidden = self._encode(x_TC[None, w.start : w.stop], num_samples_1, self._layers)
            for layer, x_1TD in hidden.items():
                kept[layer].append(x_1TD[0, w.keep_start - w.start : w.keep_stop - w.start].float())
        return {layer: torch.cat(parts) for layer, parts in kept.items()}
