"""Class probabilities for one part of ``ingest``, or for any waveforms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from gmp_atl_dist.audio import SAMPLE_RATE_HZ, pcm16_to_float
from gmp_atl_dist.device import autocast, has_gpu, torch_device
from gmp_atl_dist.inference.classifier import Classifier
from gmp_atl_dist.inference.cost import cost_batches
from gmp_atl_dist.models.emotion import EmotionModel
from gmp_atl_dist.models.padding import pad_waves
from gmp_atl_dist.models.stored import emotion_model_from_files
from gmp_atl_dist.records import PREDICTION_SCHEMA, StoredUtterance
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey, receipts_json
from gmp_atl_dist.store.readers import AudioPart, read_audio_part
from gmp_atl_dist.store.writer import ArtifactWriter

_BATCH_SAMPLES = 60 * SAMPLE_RATE_HZ
_GPU_BATCH_SAMPLES = 600 * SAMPLE_RATE_HZ
"""A classifier halves a batch that does not fit into the memory."""


@dataclass(frozen=True)
class PartPredictorArgument:
    corpus: Artifact
    finetuned: Artifact
    wanted: frozenset[str] | None
    """Ids of the test utterances; None is every utterance, by the forward pass of ``gmp-atl predict``."""
    store: Store
    key: ArtifactKey


class PartPredictor:
    """Predictions for one part of ``ingest``."""

    def __init__(self, argument: PartPredictorArgument) -> None:
        self._argument = argument
        self._out = ArtifactWriter(argument.store, argument.key)
        self._model = emotion_model_from_files(argument.finetuned.read_files())
        self._emotions = tuple(self._model.config.emotions)
        nn.Module.to(self._model, torch_device())
        # The bytes that evaluate stored on CPUs come from the padded pass, so it keeps that pass there.
        packed = argument.wanted is None or has_gpu()
        self._classify = (
            Classifier(self._model) if packed else partial(probabilities_of, self._model)
        )
        self._batch_samples = _GPU_BATCH_SAMPLES if has_gpu() else _BATCH_SAMPLES

    def __call__(self, task: Task) -> str:
        part = read_audio_part(self._argument.corpus, task.name)
        ids = self._argument.wanted
        wanted = [u for u in part.utterances if ids is None or u.utterance_id in ids]
        lengths = {u.row: u.num_samples for u in wanted}
        rows: list[dict[str, object]] = []
        for batch in cost_batches(lengths, self._batch_samples):
            rows += self._predict(part, batch)
        rows.sort(key=lambda r: str(r["utterance_id"]))
        table = pa.Table.from_pylist(rows, schema=PREDICTION_SCHEMA)
        audio_s = sum(lengths.values()) / SAMPLE_RATE_HZ
        return receipts_json([self._out.put_part(task.name, table, audio_s=audio_s)])

    def _predict(self, part: AudioPart, batch: list[int]) -> Iterator[dict[str, object]]:
        waves = [pcm16_to_float(part.samples(row)) for row in batch]
        for row, probabilities in zip(batch, self._classify(waves), strict=True):
            utterance: StoredUtterance = part.utterances[row]
            best = max(range(len(probabilities)), key=probabilities.__getitem__)
            yield {
                "utterance_id": utterance.utterance_id,
                "speaker": utterance.speaker,
                "gender": utterance.gender,
                "emotion": utterance.emotion,
                "predicted": self._emotions[best],
                "probabilities": probabilities,
            }


def probabilities_of(model: EmotionModel, waves: Sequence[np.ndarray]) -> list[list[float]]:
    """Softmax over the classes for each float32 wave (N,) at 16 kHz."""
    wave_BN, num_samples_B = pad_waves(waves)
    device = next(model.parameters()).device
    with torch.inference_mode(), autocast():
        logits_BK = model(wave_BN.to(device), num_samples_B)
    return torch.softmax(logits_BK.double(), dim=-1).cpu().tolist()
