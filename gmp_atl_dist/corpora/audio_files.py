"""Reads the bytes of recordings: files, members of tar shards, rows of Parquet shards, sound of videos.

Nothing is extracted. Of a tar shard, the range of the member is read; of a Parquet shard, the audio column of
the row group. On S3 and the hub both are read in blocks, so that neighbours in a shard need one request
together, and files of their own several at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from gmp_atl_dist.corpora.addresses import Address, find_address
from gmp_atl_dist.corpora.files_ahead import FilesAhead
from gmp_atl_dist.corpora.video import is_video, sound_of
from gmp_atl_dist.errors import ArtifactError, CorpusError
from gmp_atl_dist.store.filesystem import Store

BLOCK_BYTES = 8 << 20
"""Of one request to S3. An hour of 16 kHz 16-bit WAV needs 14 such blocks."""
_ROWS_AT_ONCE = 16
_FAULTS = (OSError, pa.ArrowException)


def read_audio_bytes(store: Store, path: str) -> bytes:
    """The whole file of one recording, wherever it lies. For many recordings, keep an :class:`AudioBytes`."""
    return AudioBytes(store).read(path)


class AudioBytes:
    """The files of a corpus, best read in the order of ``in_reading_order``.

    Keeps the last recording, because the next segment is often from it, and one open shard.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._last: tuple[str, bytes] | None = None
        self._tar: _TarShard | None = None
        self._parquet: _ParquetShard | None = None
        self._ahead: FilesAhead | None = None

    @contextmanager
    def ahead(self, paths: Iterable[str]) -> Iterator[None]:
        """Meanwhile ``read`` is asked for these, in this order. Files in object storage are read ahead."""
        if not self._store.is_remote:
            yield
            return
        files = (path for path in paths if find_address(path) is None)
        with FilesAhead(self._store, files) as self._ahead:
            try:
                yield
            finally:
                self._ahead = None

    def read(self, path: str) -> bytes:
        """The bytes of the recording at a path or address, as a file that libsndfile can open.

        Raises:
            UnreadableError: the file does not exist.
            ArtifactError: the store cannot be read.
            CorpusError: the shard is damaged, or a video has no sound.
            ConfigError: it is a video, and FFmpeg is not installed.
        """
        if self._last is None or self._last[0] != path:
            # Released first, so that memory never holds two long recordings.
            self._last = None
            self._last = (path, self._read(path))
        return self._last[1]

    def _read(self, path: str) -> bytes:
        address = find_address(path)
        if address is None:
            data = (self._store if self._ahead is None else self._ahead).read(path)
            return sound_of(data) if is_video(path) else data
        try:
            data = self._member(address)
        except _FAULTS as e:
            raise ArtifactError(
                f"cannot read {path!r} in {self._store.uri}: {type(e).__name__}: {e}; check the shard"
            ) from e
        return sound_of(data) if is_video(address.member) else data

    def _member(self, address: Address) -> bytes:
        if address.is_range:
            if self._tar is None or self._tar.path != address.shard:
                self._tar = _TarShard(self._store, address.shard)
            return self._tar.read(address)
        if self._parquet is None or self._parquet.path != address.shard:
            self._parquet = _ParquetShard(self._store, address.shard)
        return self._parquet.read(address)


class _TarShard:
    """Ranges of a tar file. On S3 they are cut out of blocks that are read ahead."""

    def __init__(self, store: Store, path: str) -> None:
        self.path = path
        self._file = store.open_input(path)
        self._ahead = BLOCK_BYTES if store.is_remote else 0
        self._start = 0
        self._block = b""

    def read(self, address: Address) -> bytes:
        first = address.start - self._start
        if first < 0 or first + address.size > len(self._block):
            self._file.seek(address.start)
            self._start = address.start
            self._block = self._file.read(max(address.size, self._ahead))
            first = 0
        data = self._block[first : first + address.size]
        if len(data) != address.size:
            raise CorpusError(
                f"the shard ends {address.size - len(data)} bytes before the end of the recording; "
                f"copy the shard again"
            )
        return data


@dataclass
class _Open:
    """A row group that is being read from front to back."""

    group: int
    column: str
    batches: Iterator[pa.RecordBatch]
    first: int
    """Row of the file of the first value of ``values``."""
    values: list[bytes | None]


class _ParquetShard:
    """Values of a binary column, some rows at a time, from front to back."""

    def __init__(self, store: Store, path: str) -> None:
        self.path = path
        self._file = open_parquet(store, path)
        counts = [
            self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)
        ]
        self._ends = [sum(counts[: i + 1]) for i in range(len(counts))]
        self._open: _Open | None = None

    def read(self, address: Address) -> bytes:
        row = address.start
        group = next((i for i, end in enumerate(self._ends) if row < end), None)
        if group is None:
            raise CorpusError(f"the shard has no row {row}; copy the shard again")
        held = self._open
        same = held is not None and (held.group, held.column) == (group, address.member)
        if held is None or not same or row < held.first:
            held = self._open = self._start(group, address.member)
        while row >= held.first + len(held.values):
            held.first += len(held.values)
            held.values = _values(next(held.batches))
        value = held.values[row - held.first]
        if value is None:
            raise CorpusError("the row has no audio; fill it in or remove the row")
        return value

    def _start(self, group: int, column: str) -> _Open:
        batches = self._file.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=[column])
        return _Open(group, column, batches, self._ends[group - 1] if group else 0, [])


def _values(batch: pa.RecordBatch) -> list[bytes | None]:
    column = batch.column(0)
    while isinstance(column, pa.StructArray):
        column = column.flatten()[0]
    return column.to_pylist()


def open_parquet(store: Store, path: str) -> pq.ParquetFile:
    """A Parquet file, to read some columns of it in blocks."""
    # Without the buffer, all of a row group's audio would be read at once.
    return pq.ParquetFile(store.open_input(path), buffer_size=BLOCK_BYTES, pre_buffer=False)
