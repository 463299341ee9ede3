"""The reading side of a forward pass: rows of ``ingest`` parts, as one table of samples."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pyarrow as pa

from gmp_atl_dist.clustering.sample import UtteranceSample
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.store.genders import with_predicted_genders
from gmp_atl_dist.store.readers import read_audio_rows
from gmp_atl_dist.store.training_set import TrainingSet

COLUMNS = ("utterance_id", "gender", "num_samples", "pcm16")


@dataclass(frozen=True)
class AudioSlice:
    """Rows ``start`` to ``stop`` of part ``part`` of ``ingest``."""

    part: str
    start: int
    stop: int


@dataclass(frozen=True)
class AudioSelection:
    """The utterances of a slice to read: those of the training set, or of a sample of it."""

    training: TrainingSet
    sample: UtteranceSample | None = None


class AudioSlices:
    """Reads the selected rows of a task's slices, in order. Row groups outside the slices are not fetched."""

    def __init__(self, selection: AudioSelection) -> None:
        self._selection = selection

    def __call__(self, task: Task) -> pa.Table:
        tables = [self._read(AudioSlice(*fields)) for fields in json.loads(task.payload)]
        return pa.concat_tables(tables)

    def _read(self, piece: AudioSlice) -> pa.Table:
        training, sample = self._selection.training, self._selection.sample
        table = read_audio_rows(
            training.corpus,
            piece.part,
            piece.start,
            piece.stop,
            columns=[*COLUMNS, "speaker", "emotion"],
        )
        table = with_predicted_genders(training, table.filter(training.members()))
        if sample is not None and not sample.is_all:
            groups = table[sample.by].to_pylist() if sample.by else None
            held = sample.mask(table["utterance_id"].to_pylist(), groups)
            table = table.filter(pa.array(held, type=pa.bool_()))
        return table.select(COLUMNS)
