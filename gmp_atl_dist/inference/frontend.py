"""Outputs of the convolutional encoder for one part of ``ingest``, one clip at a time.

A training that freezes the encoder computes the same function. With HuBERT on a CPU it computes the same
bits (``SpeechBackbone.freeze_front_end``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from gmp_atl_dist.audio import SAMPLE_RATE_HZ, pcm16_to_float
from gmp_atl_dist.device import torch_device, use_bf16
from gmp_atl_dist.models.source import backbone_from_files
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.store.artifact import Artifact, ArtifactKey, ArtifactWriter, receipts_json
from gmp_atl_dist.store.features import UtteranceFrames
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.frontend import put_frontend
from gmp_atl_dist.store.readers import read_audio_part


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
        rows: list[UtteranceFrames] = []
        samples = 0
        for row, utterance in enumerate(part.utterances):
            wave_N = torch.from_numpy(pcm16_to_float(part.samples(row))).to(torch_device())
            (x_TC,) = self._front_end([wave_N])
            frames_TC = np.ascontiguousarray(x_TC.float().cpu().numpy(), dtype="<f4")
            rows.append(UtteranceFrames(utterance.utterance_id, frames_TC))
            samples += utterance.num_samples
        audio_s = samples / SAMPLE_RATE_HZ
        return receipts_json([put_frontend(self._out, task.name, rows, audio_s=audio_s)])
