"""Pseudo-labels as they are stored: a row an utterance, of each scale the ids and whose they are.

Shape suffixes: T frames.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gmp_atl_dist.errors import ArtifactError, ModelError
from gmp_atl_dist.records import LABEL_SCHEMA
from gmp_atl_dist.store.artifact import Artifact, ArtifactWriter, Receipt, part_path
from gmp_atl_dist.store.codebooks import Codebook, books_by_scale

_MAX_INT16 = 2**15 - 1
_COMPRESSION = "zstd"
"""Ids need few of their bits and fingerprints repeat: a fifth of the bytes, at no cost that shows."""

_CACHE_BYTES = 256 << 20
"""A hundred hours at three scales."""

IMPORTED = ""
"""Fingerprint of the codebook of labels that came without one."""


@dataclass(frozen=True)
class UtteranceLabels:
    """Of one utterance and each scale: the codebook's fingerprint, and ids [T], int16 or int32."""

    utterance_id: str
    codebooks: tuple[str, ...]
    ids: tuple[np.ndarray, ...]

    @property
    def num_frames(self) -> int:
        return len(self.ids[0]) if self.ids else 0


def narrow(ids_T: np.ndarray, end: int) -> np.ndarray:
    """Ids below ``end`` as they are stored: int16, or int32 where that is not enough."""
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
    """Every row, in the order of the parts, a part in memory at a time.

    Raises:
        ArtifactError: ids are not one a frame.
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
    """Labels by utterance; the last parts used stay in memory up to a budget.

    Args:
        labels: rows in utterance-id order, part by part.
        books: whose labels they must be.
    """

    def __init__(
        self, labels: Artifact, books: Sequence[Codebook], cache_bytes: int = _CACHE_BYTES
    ) -> None:
        self._labels = labels
        self._books = books
        self._cache_bytes = cache_bytes
        parts = sorted((labels.receipts[part_path(name)].first, name) for name in labels.part_names)
        self._firsts = [first for first, _ in parts]
        self._names = [name for _, name in parts]
        self._parts: OrderedDict[str, dict[str, tuple[np.ndarray, ...]]] = OrderedDict()

    def ids(self, utterance_id: str) -> tuple[np.ndarray, ...]:
        """int16 or int32 ids [T] of every scale; read-only.

        Raises:
            ModelError: it has none, or they are not of these codebooks.
        """
        number = bisect_right(self._firsts, utterance_id) - 1
        found = self._part(self._names[number]).get(utterance_id) if number >= 0 else None
        if found is None:
            raise ModelError(
                f"utterance {utterance_id!r} has no labels in {self._labels.key.fingerprint[:12]}; "
                f"run gmp-atl verify"
            )
        return found

    def _part(self, name: str) -> dict[str, tuple[np.ndarray, ...]]:
        if name not in self._parts:
            self._parts[name] = self._read(name)
            while len(self._parts) > 1 and self._held_bytes() > self._cache_bytes:
                self._parts.popitem(last=False)
        self._parts.move_to_end(name)
        return self._parts[name]

    def _read(self, name: str) -> dict[str, tuple[np.ndarray, ...]]:
        check = LabelCheck(self._books)
        found: dict[str, tuple[np.ndarray, ...]] = {}
        for row in _rows(self._labels, name):
            check.add(row)
            found[row.utterance_id] = row.ids
        return found

    def _held_bytes(self) -> int:
        return sum(i.nbytes for part in self._parts.values() for ids in part.values() for i in ids)


class LabelCheck:
    """Counts labels as they go by, and refuses those that are not of these codebooks.

    ``counts`` holds int64 [ids] of every scale.
    """

    def __init__(self, books: Sequence[Codebook]) -> None:
        scales = books_by_scale(books)
        self._known = [{book.fingerprint: book for book in scale} for scale in scales]
        self.counts = [np.zeros(max(b.end for b in scale), np.int64) for scale in scales]

    def add(self, row: UtteranceLabels) -> None:
        """Count an utterance's labels.

        Raises:
            ModelError: they are of another codebook, of another number of scales, or out of range.
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
        """Refuse labels from which there is nothing to learn.

        Raises:
            ModelError: there is none, or a scale has one label left.
        """
        if not self.counts or not self.counts[0].any():
            raise ModelError(
                "there is no label at all; run gmp-atl verify, and the extract stage again"
            )
        for i, count in enumerate(self.counts):
            if np.count_nonzero(count) < 2:
                raise ModelError(
                    f"scale {i}: every frame has label {int(count.argmax())}, so there is nothing to "
                    f"learn; look at the features, or choose another layer in cluster.scales"
                )


def check_labels(rows: Iterable[UtteranceLabels], books: Sequence[Codebook]) -> list[np.ndarray]:
    """int64 counts [ids] of every scale, of all rows.

    Raises:
        ModelError: as :class:`LabelCheck`.
    """
    check = LabelCheck(books)
    for row in rows:
        check.add(row)
    check.check_counts()
    return check.counts
