"""Which rows of lists are the same audio: by the samples where recordings can be read, else by their path."""

from __future__ import annotations

import hashlib
import math
import posixpath
from collections import defaultdict
from collections.abc import Iterable, Sequence

from gmp_atl_dist.audio import decode_pcm16
from gmp_atl_dist.corpora.audio_paths import is_absolute
from gmp_atl_dist.corpora.splits.forms import ListedRow
from gmp_atl_dist.errors import ArtifactError, GmpAtlError
from gmp_atl_dist.store.filesystem import Store

_DECODED_BYTES = 64_000_000
"""A larger file is compared by its bytes, because its samples may not fit into memory."""


class RecordingNames:
    """What recording each row is of. A recording that can be read is known by its samples.

    The samples are those of ``ingest`` (16 kHz mono), so that a WAV and a FLAC file of one recording are the
    same. A file that cannot be decoded is known by its bytes. A recording that is not there is known by its
    path, and a row without a path by its key.
    """

    def __init__(self, source: Store | None = None) -> None:
        self._source = source
        self._known: dict[str, str] = {}
        self.num_read = 0
        self.unread: set[str] = set()

    @staticmethod
    def name_of(row: ListedRow) -> str:
        """The path of a row's recording, or else its key."""
        return posixpath.normpath(row.path) if row.path else f"key {row.key}"

    def __call__(self, row: ListedRow) -> str:
        name = self.name_of(row)
        if name not in self._known:
            self._known[name] = self._content(name, bool(row.path))
        return self._known[name]

    def _content(self, path: str, is_path: bool) -> str:
        if self._source is None:
            return path
        if not is_path or is_absolute(path) or path.startswith(".."):
            self.unread.add(path)
            return path
        try:
            data = self._source.read(path)
        except ArtifactError:
            self.unread.add(path)
            return path
        self.num_read += 1
        if len(data) <= _DECODED_BYTES:
            try:
                return f"samples {hashlib.sha256(decode_pcm16(data).tobytes()).hexdigest()}"
            except GmpAtlError:
                pass  # not readable as audio: its bytes say whether it is the same file
        return f"bytes {hashlib.sha256(data).hexdigest()}"


def overlapping(
    a: Iterable[ListedRow], b: Sequence[ListedRow], recordings: RecordingNames
) -> tuple[list[ListedRow], int]:
    """The rows of ``b`` whose audio is in ``a`` too, and the number of recordings of which both have
    segments that do not overlap."""
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in a:
        spans[recordings(row)].append(_span(row))
    for of_recording in spans.values():
        of_recording.sort()
    same: list[ListedRow] = []
    apart: set[str] = set()
    for row in b:
        recording = recordings(row)
        if recording not in spans:
            continue
        if _overlaps(_span(row), spans[recording]):
            same.append(row)
        else:
            apart.add(recording)
    return same, len(apart)


def _overlaps(span: tuple[float, float], others: Sequence[tuple[float, float]]) -> bool:
    """Segments that only touch do not overlap."""
    return any(start < span[1] and span[0] < end for start, end in others)


def _span(row: ListedRow) -> tuple[float, float]:
    return (row.start_s or 0.0, math.inf if row.end_s is None else row.end_s)
