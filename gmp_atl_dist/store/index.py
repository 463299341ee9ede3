"""The utterances of a corpus, in columns: a million of them take some 100 MB, and 1 GB as objects."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from cachetools import LRUCache, cached

from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.fold import TrainingSpeakers
from gmp_atl_dist.records import (
    UTTERANCE_SCHEMA,
    StoredUtterance,
    UtteranceGroup,
    utterances_from_table,
)
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.readers import INDEX_PART, artifact_id
from gmp_atl_dist.store.sources import read_sources

_NAMES = ("speaker", "gender", "emotion", "part")
_COLUMNS = ("utterance_id", *_NAMES, "num_samples", "row")
_INDEXES = 4


@cached(LRUCache(_INDEXES), key=artifact_id, lock=Lock())
def read_index(corpus: Artifact) -> pa.Table:
    """utterance_id, speaker, gender, emotion, num_samples, part, row of every utterance, by id."""
    table = corpus.read_part(INDEX_PART, UTTERANCE_SCHEMA, columns=_COLUMNS)
    for name in _NAMES:
        column = table[name].combine_chunks().dictionary_encode()
        table = table.set_column(table.column_names.index(name), name, column)
    return table


@dataclass(frozen=True, slots=True)
class IndexRow:
    """An utterance without its audio."""

    utterance_id: str
    speaker: str
    gender: str
    emotion: str
    part: str
    num_samples: int
    row: int


class _Ids(Sequence[str]):
    """A column as a sequence, for bisection."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, i):  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._column[i].as_py()


def index_rows(index: pa.Table, utterance_ids: Sequence[str]) -> dict[str, IndexRow]:
    """The rows of the ids that the index has, by id.

    This is fast where the ids lie close to each other, as those of a part do.
    """
    if not utterance_ids:
        return {}
    ids = _Ids(index["utterance_id"])
    start = bisect_left(ids, min(utterance_ids))
    stop = bisect_right(ids, max(utterance_ids), lo=start)
    wanted = set(utterance_ids)
    rows = index.slice(start, stop - start).select([*_COLUMNS]).to_pylist()
    return {row["utterance_id"]: IndexRow(**row) for row in rows if row["utterance_id"] in wanted}


class Utterances(Sequence[IndexRow]):
    """The utterances of some speakers, sorted by id; with ``utterance_ids`` only those of them.

    They are rows of the index; an object is made only for an utterance that is asked for. A pickle holds
    the corpus and the speakers alone, and the process that loads it reads the index again.
    """

    def __init__(
        self,
        corpus: Artifact,
        speakers: Sequence[str],
        utterance_ids: AbstractSet[str] | None = None,
    ) -> None:
        self._corpus = corpus
        self.speakers = tuple(speakers)
        self._utterance_ids = utterance_ids
        index = read_index(corpus)
        selected = pc.field("speaker").isin(pa.array(self.speakers, pa.string()))
        if utterance_ids is not None:
            named = pa.array(sorted(utterance_ids), pa.string())
            selected &= pc.field("utterance_id").isin(named)
        self._table = index.filter(selected).combine_chunks()

    def __reduce__(
        self,
    ) -> tuple[type[Utterances], tuple[Artifact, tuple[str, ...], AbstractSet[str] | None]]:
        return Utterances, (self._corpus, self.speakers, self._utterance_ids)

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, i):  # pyright: ignore[reportIncompatibleMethodOverride]
        if isinstance(i, slice):
            return self.rows(range(*i.indices(len(self))))
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        return self.rows([i % len(self)])[0]

    def rows(self, numbers: Sequence[int] | np.ndarray) -> tuple[IndexRow, ...]:
        """The utterances with these numbers, in this order."""
        taken = self._table.take(pa.array(numbers, type=pa.int64())).select([*_COLUMNS])
        return tuple(IndexRow(**row) for row in taken.to_pylist())

    @property
    def num_samples(self) -> np.ndarray:
        """int64 [utterances]."""
        return self._table["num_samples"].to_numpy()

    @property
    def part_numbers(self) -> np.ndarray:
        """int64 [utterances]: the part of each, by its rank among the names of all parts."""
        coded = self._table["part"].combine_chunks()
        if isinstance(coded, pa.ChunkedArray):
            coded = coded.chunk(0)
        names = coded.dictionary.to_pylist()
        ranks = np.empty(len(names), np.int64)
        ranks[np.argsort(np.array(names, dtype=object), kind="stable")] = np.arange(len(names))
        return ranks[coded.indices.to_numpy()]

    def source_numbers(self, names: Sequence[str]) -> np.ndarray:
        """int64 [utterances]: the number of the source of each among ``names``, by its part."""
        coded = self._table["part"].combine_chunks()
        if isinstance(coded, pa.ChunkedArray):
            coded = coded.chunk(0)
        own = [names.index(part.partition(".")[0]) for part in coded.dictionary.to_pylist()]
        return np.array(own, np.int64)[coded.indices.to_numpy()]

    def drawn(self, attribute: str, values: Sequence[str]) -> list[float]:
        """How often a training draws each value, in any unit: counts, times the weights of sources."""
        sources = read_sources(self._corpus)
        if all(source.weight == 1 for source in sources):
            return [float(count) for count in self.counts(attribute, values)]
        weights = np.array([source.weight for source in sources])
        weight_U = weights[self.source_numbers([source.name for source in sources])]
        column = np.array(self._table[attribute].to_pylist(), dtype=object)
        return [float(weight_U[column == value].sum()) for value in values]

    def counts(self, attribute: str, values: Sequence[str]) -> list[int]:
        """The number of utterances per value of a column: speaker, gender, emotion or part."""
        rows = self._table[attribute].value_counts().to_pylist()
        by_value = {row["values"]: row["counts"] for row in rows}
        return [by_value.get(value, 0) for value in values]


def training_utterances(corpus: Artifact, training_speakers: TrainingSpeakers) -> Utterances:
    """The utterances of the training speakers.

    Raises:
        CorpusError: there is none.
    """
    utterances = Utterances(corpus, training_speakers.speakers, training_speakers.utterance_ids)
    if not utterances:
        raise CorpusError(
            f"fold {training_speakers.fold.name!r} has no training utterance; check folds.held_out "
            f"and the corpus's speakers"
        )
    return utterances


def one_of_each_group(corpus: Artifact) -> tuple[StoredUtterance, ...]:
    """The first utterance of each speaker, session and split. Folds are planned from these."""
    table = corpus.read_part(INDEX_PART, UTTERANCE_SCHEMA)
    numbered = table.select(["speaker", "session", "split"]).append_column(
        "number", pa.array(range(table.num_rows), type=pa.int64())
    )
    groups = numbered.group_by(["speaker", "session", "split"]).aggregate([("number", "min")])
    return utterances_from_table(table.take(groups.sort_by("number_min")["number_min"]))


def utterance_groups(corpus: Artifact) -> tuple[UtteranceGroup, ...]:
    """The utterances in groups of one speaker, gender, emotion, session and split, with their numbers."""
    names = ["speaker", "gender", "emotion", "session", "split"]
    table = corpus.read_part(INDEX_PART, UTTERANCE_SCHEMA, columns=["utterance_id", *names])
    groups = table.group_by(names).aggregate([("utterance_id", "min"), ("utterance_id", "count")])
    named = groups.rename_columns(
        {"utterance_id_min": "utterance_id", "utterance_id_count": "count"}
    )
    return tuple(UtteranceGroup(**row) for row in named.sort_by("utterance_id").to_pylist())
