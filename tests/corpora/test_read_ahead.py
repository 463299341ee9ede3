"""A file that is read in growing windows, with gaps left out: the same bytes, in few requests."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest

from gmp_atl_dist.corpora.read_ahead import ReadAhead

MIB = 1 << 20
DATA = np.random.default_rng(5).integers(0, 256, 5 * MIB, dtype=np.uint8).tobytes()


class CountedFile:
    """A file of Arrow that notes what was read of it: (offset, bytes)."""

    def __init__(self) -> None:
        self._file = pa.BufferReader(DATA)
        self.reads: list[tuple[int, int]] = []

    def size(self) -> int:
        return self._file.size()

    def seek(self, position: int) -> int:
        return self._file.seek(position)

    def read(self, nbytes: int) -> bytes:
        self.reads.append((self._file.tell(), nbytes))
        return self._file.read(nbytes)


def opened(largest: int = MIB) -> tuple[CountedFile, ReadAhead]:
    file = CountedFile()
    return file, ReadAhead(file, largest)  # pyright: ignore[reportArgumentType]


def test_windows_double_up_to_the_largest() -> None:
    file, reader = opened(256 << 10)
    assert b"".join(iter(lambda: reader.read(10_000), b"")) == DATA
    sizes = [size >> 10 for _, size in file.reads]
    assert sizes[:4] == [64, 128, 256, 256]
    assert set(sizes[3:]) == {256}


def test_a_long_gap_is_not_transferred_and_a_short_one_is() -> None:
    file, reader = opened()
    reader.read(100)
    reader.seek(70_000)
    assert reader.read(100) == DATA[70_000:70_100]
    assert file.reads[-1] == (70_000, 128 << 10), "a short gap: the window grows"
    reader.seek(3 * MIB)
    assert reader.read(100) == DATA[3 * MIB : 3 * MIB + 100]
    assert file.reads[-1] == (3 * MIB, 64 << 10), "a long gap: the smallest window again"
    assert len(file.reads) == 3


def test_more_than_a_window_is_one_read() -> None:
    file, reader = opened(64 << 10)
    assert reader.read(MIB) == DATA[:MIB]
    assert file.reads == [(0, MIB)]


@pytest.mark.parametrize(
    ("offset", "whence", "expected"),
    [
        (7, io.SEEK_SET, 7),
        (-3, io.SEEK_CUR, 97),
        (-10, io.SEEK_END, len(DATA) - 10),
        (-1000, io.SEEK_CUR, 0),
        (10, io.SEEK_END, len(DATA) + 10),
    ],
)
def test_seek_moves_as_in_a_file(offset: int, whence: int, expected: int) -> None:
    _, reader = opened()
    reader.read(100)
    assert reader.seek(offset, whence) == expected
    assert reader.tell() == expected
    data = reader.read(5)
    assert data == DATA[expected : expected + 5]
    assert reader.tell() == expected + len(data)
