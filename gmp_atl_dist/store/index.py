"""What a corpus holds, in columns: a million utterances are some 100 MB here and 1 GB as objects."""

from __future__ import annotations

from collections import OrderedDict

import pyarrow as pa

from gmp_atl_dist.records import UTTERANCE_SCHEMA, StoredUtterance, utterances_from_table
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.readers import INDEX_PART

_COLUMNS = ("utterance_id", "speaker", "num_samples", "part", "row")
_KEPT = 4
_INDEXES: OrderedDict[tuple[str, str], pa.Table] = OrderedDict()


def read_index(corpus: Artifact) -> pa.Table:
    """utterance_id, speaker, num_samples, part, row of every utterance, in utterance-id order."""
    key = (corpus.store.uri, corpus.identity)
    # Sealed artefacts never change, and every stage asks for the same few.
    if key not in _INDEXES:
        table = corpus.read_part(INDEX_PART, UTTERANCE_SCHEMA, columns=_COLUMNS)
        for name in ("speaker", "part"):
            column = table[name].combine_chunks().dictionary_encode()
            table = table.set_column(table.column_names.index(name), name, column)
        _INDEXES[key] = table
        while len(_INDEXES) > _KEPT:
            _INDEXES.popitem(last=False)
    return _INDEXES[key]


def one_of_each_group(corpus: Artifact) -> tuple[StoredUtterance, ...]:
    """The first utterance of each speaker, session and split: all that folds are made of."""
    table = corpus.read_part(INDEX_PART, UTTERANCE_SCHEMA)
    numbered = table.select(["speaker", "session", "split"]).append_column(
        "number", pa.array(range(table.num_rows), type=pa.int64())
    )
    groups = numbered.group_by(["speaker", "session", "split"]).aggregate([("number", "min")])
    return utterances_from_table(table.take(groups.sort_by("number_min")["number_min"]))
