"""Compares what is read from the store with its receipt.

A file is hashed at each reading. A part is hashed when a process opens it first. What is wrong is an error
before anything is computed from it.
"""

from __future__ import annotations

import hashlib
from threading import Lock
from typing import Protocol, TypeAlias

import pyarrow as pa

from gmp_atl_dist.errors import ArtifactError

Bytes: TypeAlias = "bytes | memoryview | pa.Buffer"
SHORT = 12
"""Characters of a digest in a message."""
FETCHED_WHOLE_BYTES = 64 << 20
"""In object storage a part up to this size is fetched whole and hashed when it is opened first, also where
only some of it is needed. It has the index of some 400,000 utterances. Of a larger part only the row
groups that are needed are fetched, and the size of the object is compared."""


class Stated(Protocol):
    """What a receipt says of an object."""

    @property
    def name(self) -> str: ...
    @property
    def bytes(self) -> int: ...
    @property
    def sha256(self) -> str: ...


def difference(data: Bytes, stated: Stated) -> str:
    """How ``data`` differs from its receipt, in words; empty if it does not.

    1 GB takes about 0.7 s of one core (``benchmarks/reads.py``).
    """
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 == stated.sha256:
        return ""
    return (
        f"its {len(memoryview(data))} bytes have sha256 {sha256[:SHORT]}, its receipt states "
        f"{stated.bytes} bytes with {stated.sha256[:SHORT]}"
    )


def check_bytes(uri: str, prefix: str, data: Bytes, stated: Stated) -> None:
    """Compare a whole object with its receipt.

    Raises:
        ArtifactError: they differ; artefact, file, both digests and the remedy are named.
    """
    if found := difference(data, stated):
        raise damaged(uri, prefix, stated.name, found)


def damaged(uri: str, prefix: str, name: str, what: str) -> ArtifactError:
    """The error of a damaged object ``name`` of the artefact at ``prefix``."""
    return ArtifactError(
        f"{uri}/{prefix}/{name} is damaged: {what}; run gmp-atl repair --root {uri}, which shows what was "
        f"made from it and sets both aside (--yes), and then the same command again"
    )


class CheckedParts:
    """The parts that this process has hashed. A sealed part never changes."""

    def __init__(self) -> None:
        self._whole: set[tuple[str, str]] = set()
        self._lock = Lock()

    def knows(self, path: str, stated: Stated) -> bool:
        """Whether the part was hashed before, and was as stated."""
        with self._lock:
            return (path, stated.sha256) in self._whole

    def note(self, path: str, stated: Stated) -> None:
        """The part at ``path``, with its store's URI, is as stated."""
        with self._lock:
            self._whole.add((path, stated.sha256))


checked_parts = CheckedParts()
"""Of this process."""
