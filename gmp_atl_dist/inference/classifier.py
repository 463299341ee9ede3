"""Emotion probabilities of waves, without padding: each clip's result is that of the clip alone.

The frames come from the backbone's inference path (``SpeechBackbone.frame_model``). Pooling and head then
see one clip at a time on a CPU, and all clips of a batch with a mask on a GPU. On a CPU with MKL's strict
reproducibility (``device.pin_threads``) a clip has the same bits in every batch; elsewhere its probabilities
differ by less than 1e-4.

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
from gmp_atl_dist.models.slots import HostPlan, SlotLayout, SlotModel
from gmp_atl_dist.models.stored import load_emotion_model
from gmp_atl_dist.transfers import current_lane

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
        together: one copy to the device and one call of pooling and head for all clips; None: on a GPU.

    Attributes:
        emotions: the K classes, in order.
        channel: what it was trained on of recordings with several channels.
    """

    def __init__(self, model: EmotionModel, *, together: bool | None = None) -> None:
        self._together = has_gpu() if together is None else together
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
            ArtifactError: the files are those of an artefact, and differ from its receipts.
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
        if self._together:
            logits_BK = self._logits_together(waves)
        else:
            clips = [torch.from_numpy(wave).to(self._device) for wave in waves]
            outputs = self._frames(clips, _MOST_FRAMES_OF_A_PASS)
            logits_BK = torch.cat([self._logits_alone(output) for output in outputs])
        rows = torch.softmax(logits_BK.double(), dim=-1).cpu().tolist()
        return [tuple(row) for row in rows]

    def _logits_alone(self, clip: Mapping[int, Tensor]) -> Tensor:
        """(1, K) of a clip, from the frames (T, D) of each layer."""
        hidden = {layer: x_TD[None] for layer, x_TD in clip.items()}
        (steps,) = {len(x_TD) for x_TD in clip.values()}
        valid_BT = torch.ones(1, steps, dtype=torch.bool, device=self._device)
        return self._model.classifier(self._model.embed_frames(hidden, valid_BT))

    def _logits_together(self, waves: Sequence[np.ndarray]) -> Tensor:
        """(B, K): the number of kernels and copies does not depend on the number of clips."""
        lane, layout = current_lane(), SlotLayout(tuple(map(len, waves)))
        staged_N = lane.host(layout.num_samples_N, dtype=torch.float32)
        layout.place(waves, staged_N.numpy())
        sent_N = lane.send(staged_N)
        if isinstance(self._frames, SlotModel):
            frames = self._frames.frames(sent_N, layout, _MOST_FRAMES_OF_A_PASS, lane)
        else:
            outputs = self._frames(layout.clips_of(sent_N), _MOST_FRAMES_OF_A_PASS)
            frames = {layer: torch.cat([x[layer] for x in outputs]) for layer in outputs[0]}
        counts_B1 = layout.num_frames_B[:, None]
        ends_B1 = np.cumsum(counts_B1)[:, None]
        steps_T = np.arange(int(counts_B1.max()))
        plan = HostPlan()
        # In place of frames behind a clip stand copies of its last one. The mask leaves them out.
        read = plan.add(ends_B1 - counts_B1 + np.minimum(steps_T, counts_B1 - 1))
        valid = plan.add(steps_T < counts_B1)
        sent = plan.send(lane)
        hidden = {
            layer: x_MD.index_select(0, sent[read].flatten()).view(*sent[read].shape, -1)
            for layer, x_MD in frames.items()
        }
        return self._model.classifier(self._model.embed_frames(hidden, sent[valid].bool()))


def default_batch() -> int:
    """Clips of one forward pass. A CPU gains nothing from more; a GPU needs more to be busy."""
    return 64 if has_gpu() else 8
