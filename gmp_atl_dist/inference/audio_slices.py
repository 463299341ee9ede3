"""The reading side of a forward pass: rows of ``ingest`` parts, as one table of samples."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gmp_atl_dist.clustering.sample import UtteranceSample
from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.store.artifact import part_path
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
    """The rows of a slice that are wanted: those of the training set, or of a sample of it."""

    training: TrainingSet
    sample: UtteranceSample | None = None


class AudioSlices:
    """Reads a task's slices: wanted rows alone, in order; row groups without any are not fetched."""

    def __init__(self, selection: AudioSelection) -> None:
        self._selection = selection

    def __call__(self, task: Task) -> pa.Table:
        tables = [self._read(AudioSlice(*fields)) for fields in json.loads(task.payload)]
        return pa.concat_tables(tables)

    def _read(self, piece: AudioSlice) -> pa.Table:
        corpus = self._selection.training.corpus
        path = f"{corpus.key.prefix}/{part_path(piece.part)}"
        with corpus.store.open_input(path) as f:
            try:
                file = pq.ParquetFile(f, pre_buffer=True)
                groups, first = _groups(file.metadata, piece)
                table = file.read_row_groups(groups, columns=[*COLUMNS, "speaker", "emotion"])
            except (OSError, pa.ArrowException) as e:
                raise ArtifactError(
                    f"{corpus.store.uri}/{path} cannot be read as Parquet: {e}; if the store is up, "
                    f"delete {corpus.key.prefix} and run again"
                ) from e
        table = table.slice(piece.start - first, piece.stop - piece.start)
        if table.num_rows != piece.stop - piece.start:
            raise ArtifactError(
                f"{corpus.store.uri}/{path} has {table.num_rows} of rows {piece.start} to "
                f"{piece.stop}; run gmp-atl verify"
            )
        table = table.filter(pc.field("speaker").isin(self._selection.training.speakers))
        sample = self._selection.sample
        if sample is not None and not sample.is_all:
            names = table[sample.by].to_pylist() if sample.by else None
            held = sample.mask(table["utterance_id"].to_pylist(), names)
            table = table.filter(pa.array(held, type=pa.bool_()))
        return table.select(COLUMNS)


def _groups(metadata: pq.FileMetaData, piece: AudioSlice) -> tuple[list[int], int]:
    """The row groups that hold a slice, and the number of their first row."""
    groups: list[int] = []
    first, row = 0, 0
    for number in range(metadata.num_row_groups):
        stop = row + metadata.row_group(number).num_rows
        if row < piece.stop and stop > piece.start:
            first = first if groups else row
            groups.append(number)
        row = stop
    return groups, first
