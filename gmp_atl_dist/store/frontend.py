"""Stored outputs of a frozen convolutional encoder, read utterance by utterance.

An artefact of kind ``frontend`` has a part per part of ``ingest``, with the same rows in the same order.
The layout is that of features of layer 0 (``features.py``), in fp32.

Shape suffixes: T frames, C channels of the convolutional encoder.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.records import FEATURE_SCHEMA
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.cache import LoadingCache
from gmp_atl_dist.store.features import UtteranceFrames, feature_part_name, put_features
from gmp_atl_dist.store.manifest import Receipt
from gmp_atl_dist.store.readers import InPart
from gmp_atl_dist.store.writer import ArtifactWriter

_LAYER = 0
"""The input of layer 1."""
_CACHE_BYTES = 3 << 29
"""1.6 GB per rank. A window of the batch plan is 3 h and up to one part of audio more: 1.2 GB at 512
channels. Each of its utterances is read once per epoch, in random order. Where a window fits, each row
group is read once; where it does not, as with more channels, some row groups of 4 MB are read again for
one utterance each."""


def frontend_part_name(part: str) -> str:
    """The part with the outputs of an ``ingest`` part."""
    return feature_part_name(part, _LAYER)


def put_frontend(
    out: ArtifactWriter, part: str, rows: Sequence[UtteranceFrames], *, audio_s: float
) -> Receipt:
    """Write the fp32 outputs of ``ingest`` part ``part``, in its order of rows."""
    return put_features(out, part, _LAYER, rows, audio_s=audio_s)


class FrontendReader:
    """Frames of any utterance. The row groups used last stay in memory, up to a budget."""

    def __init__(self, frontend: Artifact, cache_bytes: int = _CACHE_BYTES) -> None:
        self._frontend = frontend
        self._footers: dict[str, tuple[pq.FileMetaData, list[int]]] = {}
        self._groups: LoadingCache[tuple[str, int], pa.Table] = LoadingCache(
            self._read_group, cache_bytes, lambda table: table.nbytes
        )

    def frames(self, utterance: InPart) -> np.ndarray:
        """fp32 [T, C]; read-only.

        Raises:
            ArtifactError: the row is of another utterance.
        """
        name = frontend_part_name(utterance.part)
        starts = self._footer(name)[1]
        group = bisect_right(starts, utterance.row) - 1
        table = self._groups[name, group]
        row = utterance.row - starts[group]
        if row >= len(table) or table["utterance_id"][row].as_py() != utterance.utterance_id:
            raise ArtifactError(
                f"row {utterance.row} of part {name!r} in {self._frontend.key.prefix} is not of "
                f"utterance {utterance.utterance_id!r}; run gmp-atl verify"
            )
        shape = (table["num_frames"][row].as_py(), table["dim"][row].as_py())
        return np.frombuffer(table["frames"][row].as_buffer(), "<f4").reshape(shape)

    def _footer(self, name: str) -> tuple[pq.FileMetaData, list[int]]:
        """The footer of a part, some kilobytes, and the first row of each row group."""
        if name not in self._footers:
            with self._frontend.open_part(name, FEATURE_SCHEMA) as part:
                metadata = part.metadata
            sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
            self._footers[name] = metadata, [0, *np.cumsum(sizes[:-1]).tolist()]
        return self._footers[name]

    def _read_group(self, key: tuple[str, int]) -> pa.Table:
        name, group = key
        metadata = self._footer(name)[0]
        with self._frontend.open_part(name, FEATURE_SCHEMA, metadata=metadata) as part:
            return part.read_row_group(group, use_threads=False)
