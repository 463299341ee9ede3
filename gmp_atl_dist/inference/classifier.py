"""Emotion probabilities of waves, without padding: each clip's result is that of the clip alone.

The frames come from the backbone's inference path (``SpeechBackbone.frame_model``). Pooling and head then
see one clip at a time. On a CPU with MKL's strict reproducibility (``device.pin_threads``) a clip has the
same bits in every batch; elsewhere its probabilities differ by less than 1e-4.

Shapes: N samples, T frames, D hidden, K emotions.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from gmp_atl_dist.audio import FRAME_HOP_SAMPLES, SAMPLE_RATE_HZ
from gmp_atl_dist.config import MAX_UTTERANCE_S
from gmp_atl_dist.device import (
    Accelerator,
    choose_accelerator,
    free_cached_memory,
    has_gpu,
    torch_device,
)
from gmp_atl_dist.errors import WorkerError
from gmp_atl_dist.gpu_state import full_memory_named, is_out_of_memory
from gmp_atl_dist.models.emotion import EmotionModel
from gmp_atl_dist.models.stored import load_emotion_model

CONTEXT_S = 5.0
"""On either side of what is kept of a window of attention; see :class:`Classifier`."""
_FRAMES_A_SECOND = SAMPLE_RATE_HZ // FRAME_HOP_SAMPLES
_MOST_FRAMES_OF_A_PASS = 6000
"""In one pass of the encoder, 120 s."""


class Classifier:
    """A fine-tuned model for inference. Several threads may call it at once.

    Attention sees recordings of more than ``MAX_UTTERANCE_S`` in overlapping windows, as extraction does.
    So the time for a recording grows with its length and not with the square of it.

    Args:
        model: in ``eval()``; it is moved to the device.

    Attributes:
        emotions: the K classes, in order.
        channel: what it was trained on of recordings with several channels.
    """

    def __init__(self, model: EmotionModel) -> None:
        self.emotions = tuple(model.config.emotions)
        self.channel = model.config.audio_channel
        self._device = torch_device()
        with full_memory_named("loading the model"):
            nn.Module.to(model, self._device)
        self._model = model
        self._frames = model.backbone.frame_model(
            model.layers,
            window_frames=int(MAX_UTTERANCE_S * _FRAMES_A_SECOND),
            context_frames=int(CONTEXT_S * _FRAMES_A_SECOND),
        )

    @classmethod
    def load(cls, model: str | os.PathLike[str], device: Accelerator | None = None) -> Classifier:
        """The model at a folder or URI. ``device`` is one for the whole process; None: a GPU if there is one.

        Raises:
            ModelError: ``model`` is not a fine-tuned model, or there is no such device.
        """
        if device is not None:
            choose_accelerator(device)
        return cls(load_emotion_model(os.fspath(model)))

    def __call__(self, waves: Sequence[np.ndarray]) -> list[tuple[float, ...]]:
        """K probabilities for each float32 wave (N,) at 16 kHz, of at least 400 samples.

        Raises:
            WorkerError: a single wave does not fit into the device's memory.
        """
        try:
            return self._probabilities(waves)
        except RuntimeError as e:
            if not is_out_of_memory(e):
                raise
            if len(waves) == 1:
                seconds = len(waves[0]) / SAMPLE_RATE_HZ
                raise WorkerError(
                    f"a recording of {seconds:.1f} s does not fit into the device's memory ({e}); "
                    f"predict it with --window, or with --device cpu"
                ) from e
        free_cached_memory()
        half = len(waves) // 2
        return self(waves[:half]) + self(waves[half:])

    @torch.inference_mode()
    def _probabilities(self, waves: Sequence[np.ndarray]) -> list[tuple[float, ...]]:
        clips = [torch.from_numpy(wave).to(self._device) for wave in waves]
        outputs = self._frames(clips, _MOST_FRAMES_OF_A_PASS)
        logits_BK = torch.cat([self._logits(output) for output in outputs])
        rows = torch.softmax(logits_BK.double(), dim=-1).cpu().tolist()
        return [tuple(row) for row in rows]

    def _logits(self, frames: Mapping[int, Tensor]) -> Tensor:
        """(1, K) of one clip, from its frames (T, D) of each layer."""
        hidden = {layer: x_TD[None] for layer, x_TD in frames.items()}
        shape = next(iter(hidden.values())).shape[:2]
        valid_1T = torch.ones(shape, dtype=torch.bool, device=self._device)
        return self._model.classifier(self._model.embed_frames(hidden, valid_1T))


def default_batch() -> int:
    """Clips of one forward pass. A CPU gains nothing from more; a GPU needs more to be busy."""
    return 64 if has_gpu() else 8
