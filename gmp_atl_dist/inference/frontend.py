"""Outputs of the convolutional encoder for one part of ``ingest``, in batches without padding.

A training that freezes the encoder computes the same function. With HuBERT on a CPU it computes the same
bits (``SpeechBackbone.freeze_front_end``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.device import torch_device, use_bf16
from gmp_atl_dist.inference.cost import cost_batches
from gmp_atl_dist.inference.sending import as_waves, send_clips
from gmp_atl_dist.models.slot_conv import SlotConv
from gmp_atl_dist.models.source import backbone_from_files
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.features import UtteranceFrames
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.frontend import put_frontend
from gmp_atl_dist.store.manifest import ArtifactKey, receipts_json
from gmp_atl_dist.store.readers import read_audio_part
from gmp_atl_dist.store.writer import ArtifactWriter
from gmp_atl_dist.transfers import current_lane

_BATCH_SAMPLES = 300 * SAMPLE_RATE_HZ
"""Outputs of 30 MB."""


@dataclass(frozen=True)
class FrontendArgument:
    corpus: Artifact
    model: Artifact
    store: Store
    key: ArtifactKey


class FrontendWorker:
    """Writes a part of ``frontend`` for a part of ``ingest``. Each worker loads the model once."""

    def __init__(self, argument: FrontendArgument) -> None:
        self._corpus = argument.corpus
        self._out = ArtifactWriter(argument.store, argument.key)
        backbone = backbone_from_files(argument.model.read_files())
        nn.Module.to(backbone, torch_device())
        # The precision that autocast gives the encoder in training.
        self._front_end = backbone.front_end(torch.bfloat16 if use_bf16() else torch.float32)

    def __call__(self, task: Task) -> str:
        part = read_audio_part(self._corpus, task.name)
        lengths = {row: u.num_samples for row, u in enumerate(part.utterances)}
        found: dict[int, np.ndarray] = {}
        for batch in cost_batches(lengths, _BATCH_SAMPLES, padded=False):
            found.update(zip(batch, self._features([part.samples(r) for r in batch]), strict=True))
        rows = [
            UtteranceFrames(u.utterance_id, found[row]) for row, u in enumerate(part.utterances)
        ]
        audio_s = sum(lengths.values()) / SAMPLE_RATE_HZ
        return receipts_json([put_frontend(self._out, task.name, rows, audio_s=audio_s)])

    def _features(self, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        """float32 (T, C) of each clip of 16-bit samples; on a GPU of all clips at once."""
        lane = current_lane()
        layout, samples_N = send_clips(clips, lane)
        x_MC = (
            self._front_end.of_slots(samples_N, layout, lane)
            if isinstance(self._front_end, SlotConv)
            else torch.cat(self._front_end(as_waves(layout, samples_N)))
        )
        fetched_MC = lane.fetch(x_MC.float())
        lane.mark()()
        return [
            np.ascontiguousarray(x.numpy(), dtype="<f4")
            for x in fetched_MC.split(layout.num_frames_B.tolist())
        ]
