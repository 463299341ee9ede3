"""Outputs of the convolutional encoder of one part of ``ingest``: no padding, no clip seeing another.

The same function as a training's that freezes the encoder; on a CPU, the same bits
(``models/hubert.Hubert.freeze_conv_encoder``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from gmp_atl_dist.audio import SAMPLE_RATE_HZ, pcm16_to_float
from gmp_atl_dist.device import torch_device, use_bf16
from gmp_atl_dist.models.conv_encoder import ConvEncoder
from gmp_atl_dist.models.source import hubert_from_files
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
    """Puts a part of ``frontend`` for a part of ``ingest``; the model is loaded once a worker."""

    def __init__(self, argument: FrontendArgument) -> None:
        self._corpus = argument.corpus
        self._out = ArtifactWriter(argument.store, argument.key)
        hubert = hubert_from_files(argument.model.read_files())
        nn.Module.to(hubert, torch_device())
        # As autocast has it in training.
        self._conv = ConvEncoder(hubert, torch.bfloat16 if use_bf16() else torch.float32)

    def __call__(self, task: Task) -> str:
        part = read_audio_part(self._corpus, task.name)
        rows: list[UtteranceFrames] = []
        samples = 0
        for row, utterance in enumerate(part.utterances):
            wave_N = torch.from_numpy(pcm16_to_float(part.samples(row))).to(torch_device())
            (x_TC,) = self._conv([wave_N])
            frames_TC = np.ascontiguousarray(x_TC.float().cpu().numpy(), dtype="<f4")
            rows.append(UtteranceFrames(utterance.utterance_id, frames_TC))
            samples += utterance.num_samples
        audio_s = samples / SAMPLE_RATE_HZ
        return receipts_json([put_frontend(self._out, task.name, rows, audio_s=audio_s)])
