"""Predicted genders for one part of ``ingest``, by the gender head of the warmed-up model.

Shape suffixes: B batch, N samples, G genders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from gmp_atl_dist.audio import SAMPLE_RATE_HZ, pcm16_to_float
from gmp_atl_dist.device import autocast, torch_device
from gmp_atl_dist.inference.cost import cost_batches
from gmp_atl_dist.models.multitask import WarmupModel
from gmp_atl_dist.models.padding import pad_waves
from gmp_atl_dist.models.warmed_up import warmup_model_from_files
from gmp_atl_dist.records import GENDERS, UNKNOWN_GENDER
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.genders import put_genders
from gmp_atl_dist.store.manifest import ArtifactKey, receipts_json
from gmp_atl_dist.store.readers import read_audio_part
from gmp_atl_dist.store.training_set import TrainingSet
from gmp_atl_dist.store.writer import ArtifactWriter

_BATCH_SAMPLES = 60 * SAMPLE_RATE_HZ


@dataclass(frozen=True)
class GenderArgument:
    training: TrainingSet
    warmup: Artifact
    store: Store
    key: ArtifactKey


class GenderPredictor:
    """Writes the genders of one part. Batches depend on the part alone, so its bytes do as well."""

    def __init__(self, argument: GenderArgument) -> None:
        self._training = argument.training
        self._out = ArtifactWriter(argument.store, argument.key)
        warmup = argument.warmup
        self._model = warmup_model_from_files(warmup.read_files(), warmup.key.prefix)
        nn.Module.to(self._model, torch_device())

    def __call__(self, task: Task) -> str:
        part = read_audio_part(self._training.corpus, task.name)
        holds = self._training.training_speakers.holds
        lengths = {
            u.row: u.num_samples
            for u in part.utterances
            if u.gender == UNKNOWN_GENDER and holds(u.utterance_id, u.speaker)
        }
        rows: list[tuple[str, str, float]] = []
        for batch in cost_batches(lengths, _BATCH_SAMPLES):
            waves = [pcm16_to_float(part.samples(row)) for row in batch]
            for row, (gender, p) in zip(batch, genders_of(self._model, waves), strict=True):
                rows.append((part.utterances[row].utterance_id, gender, p))
        audio_s = sum(lengths.values()) / SAMPLE_RATE_HZ
        return receipts_json([put_genders(self._out, task.name, rows, audio_s=audio_s)])


def genders_of(model: WarmupModel, waves: Sequence[np.ndarray]) -> list[tuple[str, float]]:
    """The more probable gender of each float32 wave (N,) at 16 kHz, and its probability."""
    wave_BN, num_samples_B = pad_waves(waves)
    device = next(model.parameters()).device
    with torch.inference_mode(), autocast():
        logits_BG = model(wave_BN.to(device), num_samples_B).gender_BG
    found = torch.softmax(logits_BG.double(), dim=-1).max(dim=-1)
    best_B, p_B = found.indices.tolist(), found.values.tolist()
    return [(GENDERS[best], p) for best, p in zip(best_B, p_B, strict=True)]
