"""What the store needs of a kind of storage: a filesystem to read with, and what puts whole objects.

One module per kind: ``folders``, ``s3``, ``hub`` and ``clouds`` (Google Cloud Storage and Azure Blob).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import pyarrow.fs as pafs

TEMPORARY = ".tmp-"
"""How the names of files begin that are being written; they are no objects."""


class Putter(Protocol):
    """Writes whole objects. Paths are absolute ones of the place's filesystem."""

    def put(self, path: str, data: bytes | memoryview) -> None:
        """Write or replace the object; nobody ever sees a part of it."""
        ...

    def copy(self, path: str, target: str) -> bool:
        """Copy on the side of the store; False if it cannot, and the caller reads and puts instead."""
        ...

    def put_exclusive(self, path: str, data: bytes) -> bool:
        """Write the object unless it exists. Exactly one of several writers gets True."""
        ...


class Place(Protocol):
    """One root of one kind. Its connections are made at the first use."""

    @property
    def filesystem(self) -> pafs.FileSystem: ...

    @property
    def root(self) -> str:
        """The root as a path of the filesystem, without a slash at its end."""
        ...

    @property
    def putter(self) -> Putter:
        """Opens its connection at the first put."""
        ...

    @property
    def remedy(self) -> str:
        """What to check when the storage does not do what it is asked."""
        ...

    @property
    def listed_as_changed_ns(self) -> int | None:
        """What stands for the time of change of every object; None where the storage has times."""
        ...
