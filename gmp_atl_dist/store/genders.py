"""Predicted genders of unlabelled speech, and where they take the place of unknown ones.

A ``gender`` artefact holds them, and a corpus stays as it is. Whoever groups utterances of a training set by
gender reads them here. So it sees the predicted gender where the corpus tells none.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

import pyarrow as pa
import pyarrow.compute as pc
from cachetools import LRUCache, cached

from gmp_atl_dist.records import GENDER_SCHEMA
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.index import read_index
from gmp_atl_dist.store.manifest import Receipt
from gmp_atl_dist.store.readers import artifact_id
from gmp_atl_dist.store.training_set import TrainingSet
from gmp_atl_dist.store.writer import ArtifactWriter

_TABLES = 4


def put_genders(
    out: ArtifactWriter, part: str, rows: Sequence[tuple[str, str, float]], *, audio_s: float
) -> Receipt:
    """Write (utterance id, gender, probability) of ``ingest`` part ``part``, sorted by id."""
    named = [dict(zip(GENDER_SCHEMA.names, row, strict=True)) for row in sorted(rows)]
    table = pa.Table.from_pylist(named, schema=GENDER_SCHEMA)
    return out.put_part(part, table, audio_s=audio_s)


@cached(LRUCache(_TABLES), key=artifact_id, lock=Lock())
def read_genders(genders: Artifact) -> pa.Table:
    """All rows of a ``gender`` artefact; columns of ``GENDER_SCHEMA``, sorted by id within a part."""
    parts = [genders.read_part(name, GENDER_SCHEMA) for name in genders.part_names]
    return pa.concat_tables([GENDER_SCHEMA.empty_table(), *parts])


def training_index(training: TrainingSet) -> pa.Table:
    """As :func:`gmp_atl_dist.store.index.read_index`, with the predicted genders of the training set.

    Raises:
        ArtifactError: genders are predicted, and that stage has not run yet.
    """
    genders = training.predicted_genders
    return read_index(training.corpus) if genders is None else _index(training.corpus, genders)


def with_predicted_genders(training: TrainingSet, table: pa.Table) -> pa.Table:
    """``table``, whose columns ``utterance_id`` and ``gender`` are text, with the predicted genders."""
    genders = training.predicted_genders
    return table if genders is None else _told(table, genders)


@cached(
    LRUCache(_TABLES),
    key=lambda corpus, genders: (*artifact_id(corpus), *artifact_id(genders)),
    lock=Lock(),
)
def _index(corpus: Artifact, genders: Artifact) -> pa.Table:
    table = _told(read_index(corpus), genders)
    column = table["gender"].combine_chunks().dictionary_encode()
    return table.set_column(table.column_names.index("gender"), "gender", column)


def _told(table: pa.Table, genders: Artifact) -> pa.Table:
    predicted = read_genders(genders)
    known = predicted["utterance_id"].combine_chunks()
    # Null where nothing was predicted.
    at = pc.call_function("index_in", [table["utterance_id"]], pc.SetLookupOptions(known))
    found = pc.call_function("take", [predicted["gender"].combine_chunks(), at])
    own = table["gender"].cast(pa.string())
    column = pc.call_function("coalesce", [found, own])
    return table.set_column(table.column_names.index("gender"), "gender", column)
