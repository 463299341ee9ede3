"""Outputs of a frozen convolutional encoder as they are stored, and read utterance by utterance.

An artefact of kind ``frontend`` has a part for each part of ``ingest``, with the same rows in the same
order, laid out as features of layer 0 (``features.py``) in fp32.

Shape suffixes: T frames, C channels of the convolutional encoder.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.records import FEATURE_SCHEMA
from gmp_atl_dist.store.artifact import Artifact, ArtifactWriter, Receipt
from gmp_atl_dist.store.features import UtteranceFrames, feature_part_name, put_features
from gmp_atl_dist.store.readers import InPart

_LAYER = 0
"""What lies below the first layer."""
_CACHE_BYTES = 3 << 29
"""1.6 GB, a rank. A window of the batch plan is 3 h and up to a part of audio more, of which each
utterance is read once an epoch, in random order: 1.2 GB at 512 channels. It is read once where that fits;
where it does not, as with more channels, some row groups of 4 MB are read again for an utterance each."""


def frontend_part_name(part: str) -> str:
    """Of what was made from an ``ingest`` part."""
    return feature_part_name(part, _LAYER)


def put_frontend(
    out: ArtifactWriter, part: str, rows: Sequence[UtteranceFrames], *, audio_s: float
) -> Receipt:
    """Write what was made from ``ingest`` part ``part``, fp32, in its order."""
    return put_features(out, part, _LAYER, rows, audio_s=audio_s)


class FrontendReader:
    """Frames of any utterance; row groups used last stay in memory up to a budget."""

    def __init__(self, frontend: Artifact, cache_bytes: int = _CACHE_BYTES) -> None:
        self._frontend = frontend
        self._cache_bytes = cache_bytes
        self._held_bytes = 0
        self._footers: dict[str, tuple[pq.FileMetaData, list[int]]] = {}
        self._groups: OrderedDict[tuple[str, int], pa.Table] = OrderedDict()

    def frames(self, utterance: InPart) -> np.ndarray:
        """fp32 [T, C]; read-only.

        Raises:
            ArtifactError: another utterance is there.
        """
        name = frontend_part_name(utterance.part)
        starts = self._footer(name)[1]
        group = bisect_right(starts, utterance.row) - 1
        table = self._group(name, group)
        row = utterance.row - starts[group]
        if row >= len(table) or table["utterance_id"][row].as_py() != utterance.utterance_id:
            raise ArtifactError(
                f"row {utterance.row} of part {name!r} in {self._frontend.key.prefix} is not of "
                f"utterance {utterance.utterance_id!r}; run gmp-atl verify"
            )
        shape = (table["num_frames"][row].as_py(), table["dim"][row].as_py())
        return np.frombuffer(table["frames"][row].as_buffer(), "<f4").reshape(shape)

    def _footer(self, name: str) -> tuple[pq.FileMetaData, list[int]]:
        """Some kilobytes a part; and the first row of each row group."""
        if name not in self._footers:
            with self._frontend.open_part(name, FEATURE_SCHEMA) as part:
                metadata = part.metadata
            sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
            self._footers[name] = metadata, [0, *np.cumsum(sizes[:-1]).tolist()]
        return self._footers[name]

    def _group(self, name: str, group: int) -> pa.Table:
        key = (name, group)
        if key not in self._groups:
            metadata = self._footer(name)[0]
            with self._frontend.open_part(name, FEATURE_SCHEMA, metadata=metadata) as part:
                self._groups[key] = part.read_row_group(group, use_threads=False)
            self._held_bytes += self._groups[key].nbytes
            while len(self._groups) > 1 and self._held_bytes > self._cache_bytes:
                _, dropped = self._groups.popitem(last=False)
                self._held_bytes -= dropped.nbytes
        self._groups.move_to_end(key)
        return self._groups[key]
