"""Addresses of audio inside a shard, as the path of an utterance.

``train-0.tar#utt1.wav@1536+64044`` is a member of a tar file: 64,044 bytes from byte 1,536 on.
``train-0.parquet#audio.bytes@17+64044`` is a value of a Parquet column: row 17, of about 64,044 bytes.

An address says all that is needed to read the audio and nothing else of the shard. The name of the member is
for people; it is never opened. The shard is a path below the corpus, and goes through the same checks as
every path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gmp_atl_dist.records import Utterance
from gmp_atl_dist.store.filesystem import Entry

TAR = ".tar"
PARQUET = ".parquet"
_ADDRESS = re.compile(
    r"(?P<shard>[^#]+(?P<kind>\.tar|\.parquet))#(?P<member>.*)@(?P<start>\d{1,18})\+(?P<size>\d{1,18})",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Address:
    """Audio inside a shard.

    Attributes:
        shard: path of the shard, relative to the corpus.
        member: name of the member of a tar file; dotted name of the column of a Parquet file.
        start: first byte in a tar file; row in a Parquet file, from 0.
        size: bytes; in a Parquet file the mean of the row group, to plan parts by.
    """

    shard: str
    member: str
    start: int
    size: int

    def __str__(self) -> str:
        return f"{self.shard}#{self.member}@{self.start}+{self.size}"

    @property
    def is_range(self) -> bool:
        """Whether it is a range of bytes, and not a row."""
        return self.shard.endswith(TAR)


def find_address(path: str) -> Address | None:
    """The address that a path is; None for a file of its own."""
    # Asked for every utterance, and most are files.
    if "#" not in path:
        return None
    parts = _ADDRESS.fullmatch(path)
    if parts is None:
        return None
    return Address(parts["shard"], parts["member"], int(parts["start"]), int(parts["size"]))


def file_of(path: str) -> str:
    """The file that must exist so that the audio at ``path`` can be read."""
    address = find_address(path)
    return path if address is None else address.shard


def member_entries(paths: Iterable[str], files: Mapping[str, Entry]) -> dict[str, Entry]:
    """An entry for each address whose shard is there, as if the member were a file.

    The time is that of the shard, so that a shard that was written again changes the stamp of the corpus.
    A range that ends behind the shard has no entry, and counts as missing.
    """
    entries: dict[str, Entry] = {}
    for path in paths:
        address = None if path in files else find_address(path)
        shard = None if address is None else files.get(address.shard)
        if address is None or shard is None:
            continue
        if not address.is_range or address.start + address.size <= shard.size:
            entries[path] = Entry(path, address.size, shard.mtime_ns)
    return entries


def in_reading_order(utterances: Sequence[Utterance]) -> Sequence[Utterance]:
    """The order in which parts are cut: neighbours in a shard stay together.

    Utterances in files of their own keep their order, which determines the parts of existing stores.
    """
    addresses = [find_address(u.path) for u in utterances]
    if not any(addresses):
        return utterances

    def place(i: int) -> tuple[str, int, int]:
        address = addresses[i]
        return ("", 0, i) if address is None else (address.shard, address.start, i)

    return [utterances[i] for i in sorted(range(len(utterances)), key=place)]
