"""Stored features: written part by part, streamed, and read by utterance.

A part holds one layer of some utterances, in utterance-id order, in row groups of some megabytes. A row
group is small enough to be read for one utterance, and large enough for one request to S3.

Shape suffixes: T frames of one utterance, M of several, D hidden.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.partition import greedy_batches
from gmp_atl_dist.records import FEATURE_SCHEMA
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.cache import LoadingCache
from gmp_atl_dist.store.manifest import Receipt, part_path
from gmp_atl_dist.store.writer import ArtifactWriter

_ROW_GROUP_BYTES = 4 << 20
_DTYPES = ("<f2", "<f4")
_INDEX_COLUMNS = ["utterance_id", "layer", "num_frames", "dim"]
_INDEXES = 256
"""Parts whose footer and ids stay in memory, some kilobytes each."""


@dataclass(frozen=True)
class UtteranceFrames:
    """Features of one utterance and layer; ``frames_TD`` is fp16, or fp32 if it was imported as fp32."""

    utterance_id: str
    frames_TD: np.ndarray


@dataclass(frozen=True)
class FrameBatch:
    """Frames of whole utterances, one after the other, as fp32."""

    utterance_ids: tuple[str, ...]
    num_frames: tuple[int, ...]
    x_MD: np.ndarray


def feature_part_name(part: str, layer: int) -> str:
    return f"{part}-layer{layer:02d}"


def feature_source_parts(features: Artifact, layer: int) -> tuple[str, ...]:
    """The ingest parts that a layer's features were made from, in order."""
    suffix = feature_part_name("", layer)
    return tuple(n.removesuffix(suffix) for n in features.part_names if n.endswith(suffix))


def feature_receipts(features: Artifact, layer: int) -> dict[str, Receipt]:
    """Receipts of a layer's parts that are not empty, by ingest part, in utterance-id order.

    Raises:
        ArtifactError: there is none, or the parts are not disjoint ranges of utterance ids.
    """
    names = feature_source_parts(features, layer)
    receipts = {n: features.receipts[part_path(feature_part_name(n, layer))] for n in names}
    filled = sorted(((n, r) for n, r in receipts.items() if r.rows), key=lambda item: item[1].first)
    if not filled:
        raise ArtifactError(
            f"{features.key.prefix} holds no features of layer {layer}; its parts are "
            f"{features.part_names}: choose a layer that was extracted"
        )
    last = ""
    for name, receipt in filled:
        if receipt.first <= last:
            raise ArtifactError(
                f"{features.key.prefix}: utterances of part {name!r} begin at {receipt.first!r}, which "
                f"is not after {last!r}; another version wrote it: extract again in a new root"
            )
        last = receipt.last
    return dict(filled)


def put_features(
    out: ArtifactWriter,
    part: str,
    layer: int,
    rows: Sequence[UtteranceFrames],
    *,
    audio_s: float,
    compression: str = "none",
) -> Receipt:
    """Write the features of one layer of part ``part``; rows in utterance-id order, fp16 or fp32.

    Raises:
        ValueError: rows are not in order, or of another type. This is a defect of the caller.
    """
    _check_rows(rows)
    total_bytes = sum(u.frames_TD.nbytes for u in rows)
    group_rows = max(1, _ROW_GROUP_BYTES * len(rows) // max(total_bytes, 1))
    return out.put_part(
        feature_part_name(part, layer),
        _feature_table(layer, rows, group_rows),
        frames=sum(len(u.frames_TD) for u in rows),
        audio_s=audio_s,
        compression=compression,
        row_group_rows=group_rows,
        first=rows[0].utterance_id if rows else "",
        last=rows[-1].utterance_id if rows else "",
    )


def _check_rows(rows: Sequence[UtteranceFrames]) -> None:
    for a, b in pairwise(u.utterance_id for u in rows):
        if a >= b:
            raise ValueError(f"utterance {b!r} follows {a!r}; rows must be in utterance-id order")
    for u in rows:
        if u.frames_TD.ndim != 2 or u.frames_TD.dtype.str not in _DTYPES:
            raise ValueError(
                f"utterance {u.utterance_id!r}: features are {u.frames_TD.dtype} of shape "
                f"{u.frames_TD.shape}, expected little-endian fp16 or fp32 [frames, dim]"
            )


def _feature_table(layer: int, rows: Sequence[UtteranceFrames], group_rows: int) -> pa.Table:
    groups = [rows[i : i + group_rows] for i in range(0, len(rows), group_rows)]
    columns = [
        pa.array([u.utterance_id for u in rows], pa.string()),
        pa.array([layer] * len(rows), pa.int32()),
        pa.array([u.frames_TD.shape[0] for u in rows], pa.int32()),
        pa.array([u.frames_TD.shape[1] for u in rows], pa.int32()),
        # One array per row group, because one array of all rows could exceed Arrow's limit of 2 GiB.
        pa.chunked_array([_binary([u.frames_TD for u in group]) for group in groups], pa.binary()),
    ]
    return pa.Table.from_arrays(columns, schema=FEATURE_SCHEMA)


def _binary(arrays: Sequence[np.ndarray]) -> pa.Array:
    """The bytes of each array, copied once, into one buffer of the final size."""
    ends = np.cumsum([0, *(x.nbytes for x in arrays)], dtype=np.int64)
    buffer = pa.allocate_buffer(int(ends[-1]))
    flat = np.frombuffer(buffer, np.uint8)
    for x_TD, start, end in zip(arrays, ends, ends[1:], strict=False):
        flat[start:end].view(x_TD.dtype).reshape(x_TD.shape)[...] = x_TD
    offsets = pa.array(ends, pa.int32()).buffers()[1]
    return pa.Array.from_buffers(pa.binary(), len(arrays), [None, offsets, buffer])


def read_features(features: Artifact, part: str, layer: int) -> Iterator[UtteranceFrames]:
    """The features of one ingest part and layer, utterance by utterance, with one row group in memory.

    Parquet is decoded from the mapped file, or from the one response of S3, into Arrow's memory. That is
    the only copy (with compression, the decompressed page is copied). The arrays are views of it.

    Raises:
        ArtifactError: a row is of another layer, or its size is not that of its shape.
    """
    name = feature_part_name(part, layer)
    with features.open_part(name, FEATURE_SCHEMA, whole=True) as source:
        for group in range(source.num_row_groups):
            table = source.read_row_group(group, use_threads=False)
            frames = table["frames"]
            for row, columns in enumerate(_index_rows(table)):
                yield _view(frames[row].as_buffer(), *columns, layer, name)


def _index_rows(table: pa.Table) -> Iterable[tuple[str, int, int, int]]:
    return zip(*(table[name].to_pylist() for name in _INDEX_COLUMNS), strict=True)


def _view(
    buffer: pa.Buffer,
    utterance_id: str,
    row_layer: int,
    frames: int,
    dim: int,
    layer: int,
    name: str,
) -> UtteranceFrames:
    """A row as an array; its size tells its type."""
    sizes = {frames * dim * np.dtype(d).itemsize: d for d in reversed(_DTYPES)}
    if row_layer != layer or min(frames, dim) < 0 or buffer.size not in sizes:
        raise ArtifactError(
            f"features of utterance {utterance_id!r} in part {name!r} are of layer {row_layer} and "
            f"hold {buffer.size // 2} values, expected {frames} x {dim} of layer {layer}, in fp16 or "
            f"fp32; run gmp-atl verify"
        )
    flat = np.frombuffer(buffer, dtype=sizes[buffer.size])
    return UtteranceFrames(utterance_id, flat.reshape(frames, dim))


def stream_batches(
    features: Artifact, layer: int, batch_frames: int, *, parts: Sequence[str] | None = None
) -> Iterator[FrameBatch]:
    """A layer's features in batches of at most ``batch_frames`` frames: of ``parts``, or of all in order.

    An utterance is never split: one that is longer is a batch of its own. After decoding, frames are
    copied once, by the conversion to fp32.

    Raises:
        ArtifactError: utterances differ in dim, or as :func:`read_features`.
    """
    names = feature_source_parts(features, layer) if parts is None else parts
    utterances = (u for name in names for u in read_features(features, name, layer))
    dims: dict[int, str] = {}
    for batch in greedy_batches(utterances, batch_frames, lambda u: len(u.frames_TD)):
        for u in batch:
            dims.setdefault(u.frames_TD.shape[1], u.utterance_id)
        if len(dims) > 1:
            raise ArtifactError(
                f"features of layer {layer} in {features.key.prefix} are of different dim: {dims}; "
                f"extract again in a new root"
            )
        yield FrameBatch(
            tuple(u.utterance_id for u in batch),
            tuple(len(u.frames_TD) for u in batch),
            np.concatenate([u.frames_TD for u in batch], dtype=np.float32),
        )


@dataclass(frozen=True)
class _Index:
    """A part without its frames: the footer, the rows, their ids, and the first row of each row group."""

    metadata: pq.FileMetaData
    rows: list[tuple[str, int, int, int]]
    ids: list[str]
    group_starts: list[int]


class FeatureReader:
    """Features of any utterance: the receipts tell its part, and the part's ids its row group.

    Only that row group is read. The ids of the parts used last and the row group used last stay in
    memory, so that reading utterances in order costs one read per row group.
    """

    def __init__(self, features: Artifact, layer: int) -> None:
        self._features = features
        self._layer = layer
        receipts = feature_receipts(features, layer)
        self._parts = list(receipts)
        self._firsts = [r.first for r in receipts.values()]
        self._indexes: LoadingCache[str, _Index] = LoadingCache(self._read_index, _INDEXES)
        self._held: tuple[tuple[str, int], pa.ChunkedArray] | None = None

    def frames(self, utterance_id: str) -> np.ndarray:
        """[T, D], fp16, or fp32 if it was imported as fp32; read-only.

        Raises:
            ArtifactError: there is no such utterance, or its part is damaged.
        """
        i = bisect_right(self._firsts, utterance_id) - 1
        if i >= 0:
            index = self._indexes[self._parts[i]]
            row = bisect_left(index.ids, utterance_id)
            if row < len(index.ids) and index.ids[row] == utterance_id:
                return self._row(self._parts[i], index, row)
        raise ArtifactError(
            f"utterance {utterance_id!r} has no features of layer {self._layer} in "
            f"{self._features.key.prefix}; ask for one that was extracted"
        )

    def _row(self, part: str, index: _Index, row: int) -> np.ndarray:
        group = bisect_right(index.group_starts, row) - 1
        name = feature_part_name(part, self._layer)
        if self._held is None or self._held[0] != (part, group):
            with self._features.open_part(name, FEATURE_SCHEMA, metadata=index.metadata) as source:
                table = source.read_row_group(group, columns=["frames"], use_threads=False)
            self._held = ((part, group), table["frames"])
        buffer = self._held[1][row - index.group_starts[group]].as_buffer()
        x_TD = _view(buffer, *index.rows[row], self._layer, name).frames_TD
        # The next caller for this utterance gets the same memory.
        x_TD.flags.writeable = False
        return x_TD

    def _read_index(self, part: str) -> _Index:
        with self._features.open_part(
            feature_part_name(part, self._layer), FEATURE_SCHEMA
        ) as source:
            rows = list(_index_rows(source.read(columns=_INDEX_COLUMNS, use_threads=False)))
            metadata = source.metadata
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        starts = [0, *np.cumsum(sizes[:-1]).tolist()]
        return _Index(metadata, rows, [r[0] for r in rows], starts)
