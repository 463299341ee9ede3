"""Stored pseudo-labels: a row per utterance, with the ids of each scale and the codebook they are of.

Shape suffixes: T frames.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gmp_atl_dist.errors import ArtifactError, ModelError
from gmp_atl_dist.records import LABEL_SCHEMA
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.cache import LoadingCache
from gmp_atl_dist.store.codebooks import Codebook, books_by_scale
from gmp_atl_dist.store.manifest import Receipt, part_path
from gmp_atl_dist.store.writer import ArtifactWriter

_MAX_INT16 = 2**15 - 1
_COMPRESSION = "zstd"
"""Ids use few of their bits and fingerprints repeat: a fifth of the bytes remains, at no measurable
cost."""

_CACHE_BYTES = 256 << 20
"""Enough for a hundred hours at three scales."""

IMPORTED = ""
"""The codebook fingerprint of labels that were imported without a codebook."""


@dataclass(frozen=True)
class UtteranceLabels:
    """The labels of one utterance. Per scale: the codebook's fingerprint, and ids [T], int16 or int32."""

    utterance_id: str
    codebooks: tuple[str, ...]
    ids: tuple[np.ndarray, ...]

    @property
    def num_frames(self) -> int:
        return len(self.ids[0]) if self.ids else 0


def narrow(ids_T: np.ndarray, end: int) -> np.ndarray:
    """Ids below ``end`` in their stored type: int16, or int32 where int16 is too small."""
    return ids_T.astype("<i2" if end - 1 <= _MAX_INT16 else "<i4")


def put_labels(
    out: ArtifactWriter, name: str, rows: Sequence[UtteranceLabels], audio_s: float = 0.0
) -> Receipt:
    """Write a part of labels, rows in utterance-id order."""
    columns = [
        pa.array([row.utterance_id for row in rows], pa.string()),
        pa.array([row.num_frames for row in rows], pa.int32()),
        pa.array([list(row.codebooks) for row in rows], LABEL_SCHEMA.field("codebooks").type),
        pa.array([[i.tobytes() for i in r.ids] for r in rows], LABEL_SCHEMA.field("labels").type),
    ]
    return out.put_part(
        name,
        pa.Table.from_arrays(columns, schema=LABEL_SCHEMA),
        frames=sum(row.num_frames for row in rows),
        audio_s=audio_s,
        compression=_COMPRESSION,
        first=rows[0].utterance_id if rows else "",
        last=rows[-1].utterance_id if rows else "",
    )


def stream_labels(labels: Artifact) -> Iterator[UtteranceLabels]:
    """Every row, in the order of the parts, with one part in memory at a time.

    Raises:
        ArtifactError: the number of ids is not the number of frames.
    """
    for name in labels.part_names:
        yield from _rows(labels, name)


def _rows(labels: Artifact, name: str) -> Iterator[UtteranceLabels]:
    for row in labels.read_part(name, LABEL_SCHEMA).to_pylist():
        frames, utterance_id = row["num_frames"], row["utterance_id"]
        ids = tuple(_ids(data, frames, utterance_id, name) for data in row["labels"])
        yield UtteranceLabels(utterance_id, tuple(row["codebooks"]), ids)


def _ids(data: bytes, frames: int, utterance_id: str, part: str) -> np.ndarray:
    if len(data) not in (2 * frames, 4 * frames):
        raise ArtifactError(
            f"labels of utterance {utterance_id!r} in part {part!r} are {len(data)} bytes, expected "
            f"2 or 4 for each of {frames} frames; run gmp-atl verify"
        )
    return np.frombuffer(data, "<i2" if len(data) == 2 * frames else "<i4")


def read_labels(
    labels: Artifact, wanted: Collection[str] | None = None
) -> dict[str, tuple[np.ndarray, ...]]:
    """int16 or int32 ids [T] of every scale, by utterance id."""
    return {
        row.utterance_id: row.ids
        for row in stream_labels(labels)
        if wanted is None or row.utterance_id in wanted
    }


class LabelReader:
    """Labels by utterance. The parts used last stay in memory, up to a budget.

    Args:
        labels: rows in utterance-id order, part by part.
        books: the codebooks that the labels must be of.
    """

    def __init__(
        self, labels: Artifact, books: Sequence[Codebook], cache_bytes: int = _CACHE_BYTES
    ) -> None:
        self._labels = labels
        self._books = books
        parts = sorted((labels.receipts[part_path(name)].first, name) for name in labels.part_names)
        self._firsts = [first for first, _ in parts]
        self._names = [name for _, name in parts]
        self._parts: LoadingCache[str, dict[str, tuple[np.ndarray, ...]]] = LoadingCache(
            self._read, cache_bytes, _num_bytes
        )

    def ids(self, utterance_id: str) -> tuple[np.ndarray, ...]:
        """int16 or int32 ids [T] of every scale; read-only.

        Raises:
            ModelError: the utterance has no labels, or they are not of these codebooks.
        """
        number = bisect_right(self._firsts, utterance_id) - 1
        ids = self._parts[self._names[number]].get(utterance_id) if number >= 0 else None
        if ids is None:
            raise ModelError(
                f"utterance {utterance_id!r} has no labels in {self._labels.key.fingerprint[:12]}; "
                f"run gmp-atl verify"
            )
        return ids

    def _read(self, name: str) -> dict[str, tuple[np.ndarray, ...]]:
        check = LabelCheck(self._books)
        part: dict[str, tuple[np.ndarray, ...]] = {}
        for row in _rows(self._labels, name):
            check.add(row)
            part[row.utterance_id] = row.ids
        return part


def _num_bytes(part: dict[str, tuple[np.ndarray, ...]]) -> int:
    return sum(scale.nbytes for ids in part.values() for scale in ids)


class LabelCheck:
    """Counts labels, row by row, and refuses those that are not of these codebooks.

    ``counts`` holds int64 [ids] of every scale.
    """

    def __init__(self, books: Sequence[Codebook]) -> None:
        scales = books_by_scale(books)
        self._known = [{book.fingerprint: book for book in scale} for scale in scales]
        self.counts = [np.zeros(max(b.end for b in scale), np.int64) for scale in scales]

    def add(self, row: UtteranceLabels) -> None:
        """Count an utterance's labels.

        Raises:
            ModelError: they are of another codebook or number of scales, or out of range.
        """
        if (len(row.ids), len(row.codebooks)) != (len(self.counts), len(self.counts)):
            raise ModelError(
                f"utterance {row.utterance_id!r} has labels of {len(row.ids)} scales, expected "
                f"{len(self.counts)}; run gmp-atl verify"
            )
        for i, (ids, fingerprint) in enumerate(zip(row.ids, row.codebooks, strict=True)):
            book = self._known[i].get(fingerprint)
            if book is None:
                known = ", ".join(name[:12] for name in self._known[i])
                raise ModelError(
                    f"utterance {row.utterance_id!r}: labels of scale {i} are of codebook "
                    f"{fingerprint[:12] or 'unknown'}, expected {known}; label again with the "
                    f"codebooks of this run"
                )
            if len(ids) != row.num_frames:
                raise ModelError(
                    f"utterance {row.utterance_id!r}: {len(ids)} labels of scale {i} and "
                    f"{row.num_frames} of scale 0; run gmp-atl verify"
                )
            if ids.size and not book.offset <= ids.min() <= ids.max() < book.end:
                raise ModelError(
                    f"utterance {row.utterance_id!r}: labels of scale {i} run from {ids.min()} to "
                    f"{ids.max()}, expected {book.offset} to {book.end - 1}; run gmp-atl verify"
                )
            self.counts[i] += np.bincount(ids, minlength=len(self.counts[i]))

    def check_counts(self) -> None:
        """Refuse labels that a model can learn nothing from.

        Raises:
            ModelError: there is no label, or a scale has a single one.
        """
        if not self.counts or not self.counts[0].any():
            raise ModelError("there is no label; run gmp-atl verify, and the extract stage again")
        for i, count in enumerate(self.counts):
            if np.count_nonzero(count) < 2:
                raise ModelError(
                    f"scale {i}: every frame has label {int(count.argmax())}, so a model can learn "
                    f"nothing; check the features, or choose another layer in cluster.scales"
                )
