"""A file in object storage that is read from front to back with some of it left out, such as a tar shard.

Each read of a stored object is a request, which takes about as long as the transfer of some MiB. So
neighbours are read together, in windows that grow while nothing long is left out. What is longer than a MiB
and is not asked for, such as the recording between two headers of a tar file, is not transferred.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_SMALLEST_BYTES = 1 << 16
_LONG_GAP_BYTES = 1 << 20


class ReadAhead(io.RawIOBase):
    """Reads a file of Arrow in windows of 64 KiB up to ``largest`` bytes."""

    def __init__(self, file: pa.NativeFile, largest: int) -> None:
        super().__init__()
        self._file = file
        self._size = file.size()
        self._largest = largest
        self._window = min(_SMALLEST_BYTES, largest)
        self._start = 0
        self._block = b""
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        target = memoryview(buffer).cast("B")
        wanted = min(len(target), max(0, self._size - self._position))
        end = self._start + len(self._block)
        if wanted and not self._start <= self._position <= self._position + wanted <= end:
            self._load(wanted, gap=self._position - end)
        first = self._position - self._start
        data = self._block[first : first + wanted]
        target[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _load(self, wanted: int, gap: int) -> None:
        if gap > _LONG_GAP_BYTES:
            self._window = min(_SMALLEST_BYTES, self._largest)
        elif self._block:
            self._window = min(2 * self._window, self._largest)
        self._file.seek(self._position)
        self._start = self._position
        self._block = self._file.read(max(wanted, self._window))
