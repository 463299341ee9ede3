"""A complete stage in one file: ``loudness``, the level of every training utterance in dBFS.

It shows what a stage is: inputs, the part of the configuration that is hashed, parts that are computed
by tasks on any worker, and a typed reader for whoever uses the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from gmp_atl_dist.audio import SAMPLE_RATE_HZ, pcm16_to_float
from gmp_atl_dist.config import Json
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.stages.base import Context, Handle, Seal, Stage
from gmp_atl_dist.stages.mapped import map_parts
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey, receipts_json
from gmp_atl_dist.store.readers import audio_part_names, read_audio_part
from gmp_atl_dist.store.training_set import TrainingSet
from gmp_atl_dist.store.writer import ArtifactWriter

LOUDNESS_SCHEMA = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("level_dbfs", pa.float64(), nullable=False),
    ]
)
"""One row per utterance. ``level_dbfs`` is the RMS level relative to full scale."""

_SILENCE = 1e-10


@dataclass(frozen=True)
class Loudness(Stage):
    """RMS level of every utterance of the training set."""

    training: TrainingSet

    # The kind is a folder of the store and a part of the fingerprint: it never changes again.
    kind: ClassVar[str] = "loudness"
    # Raise it when the same inputs give other bytes.
    version: ClassVar[int] = 1

    @property
    def fold_name(self) -> str:
        return self.training.fold.name

    def science(self) -> dict[str, Json]:
        return {**self.training.training_speakers.hashed()}

    def inputs(self) -> Mapping[str, Handle]:
        return {"corpus": self.training.corpus}

    def run(self, context: Context, out: ArtifactWriter) -> Seal:
        map_parts(
            context,
            out,
            context.tags(self),
            [Task(name) for name in audio_part_names(self.training.corpus)],
            LoudnessWorker,
            LoudnessArgument(self.training, context.store, out.key),
            context.settings.label,  # workers, cores and GPUs: [runtime.label]
            outputs=lambda name: [name],
        )
        return Seal()


@dataclass(frozen=True)
class LoudnessArgument:
    """What each worker is given; it is pickled."""

    training: TrainingSet
    store: Store
    key: ArtifactKey


class LoudnessWorker:
    """Made once per process, called once per task; returns receipts as JSON."""

    def __init__(self, argument: LoudnessArgument) -> None:
        self._argument = argument
        self._out = ArtifactWriter(argument.store, argument.key)

    def __call__(self, task: Task) -> str:
        training = self._argument.training
        part = read_audio_part(training.corpus, task.name)
        rows = [
            {"utterance_id": u.utterance_id, "level_dbfs": _level_dbfs(part.samples(u.row))}
            for u in part.utterances
            if training.training_speakers.holds(u.utterance_id, u.speaker)
        ]
        audio_s = sum(u.num_samples for u in part.utterances) / SAMPLE_RATE_HZ
        table = pa.Table.from_pylist(rows, schema=LOUDNESS_SCHEMA)
        return receipts_json([self._out.put_part(task.name, table, audio_s=audio_s)])


def _level_dbfs(pcm16: np.ndarray) -> float:
    wave = pcm16_to_float(pcm16)
    return float(10 * np.log10(max(float(np.mean(np.square(wave))), _SILENCE)))


def read_loudness(artifact: Artifact) -> dict[str, float]:
    """The level of each utterance in dBFS, by its id."""
    return {
        row["utterance_id"]: row["level_dbfs"]
        for name in artifact.part_names
        for row in artifact.read_part(name, LOUDNESS_SCHEMA).to_pylist()
    }
