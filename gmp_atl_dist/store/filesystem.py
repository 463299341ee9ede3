"""A root URI, and its few operations: list, read, put of whole objects, exclusive put, copy, delete.

What differs between a folder, S3, Google Cloud Storage, Azure Blob and the hub is in their places
(``places.py``). A partial object is never visible in any of them.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.fs as pafs

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.store.clouds import CLOUDS, CloudPlace
from gmp_atl_dist.store.explained import Explained, UnreadableError
from gmp_atl_dist.store.folders import FILE, FolderPlace
from gmp_atl_dist.store.hub import HUB, HubPlace, pinned_hub_uri
from gmp_atl_dist.store.places import TEMPORARY, Place
from gmp_atl_dist.store.root_uris import normalize_uri
from gmp_atl_dist.store.s3 import S3, S3Place

__all__ = ["Entry", "Store", "UnreadableError", "normalize_uri"]


@dataclass(frozen=True, slots=True)
class Entry:
    """An object below a root: its path relative to it, bytes, and time of change."""

    path: str
    size: int
    mtime_ns: int


class Store:
    """Objects below one root. Cheap to create. A pickle holds the URI alone; the connection is made again."""

    def __init__(self, uri: str, timeout_s: float | None = None) -> None:
        self.uri = normalize_uri(uri)
        if self.uri.startswith(HUB):
            self.uri = pinned_hub_uri(self.uri, timeout_s)
        self._timeout_s = timeout_s

    @classmethod
    def open(cls, uri: str, timeout_s: float | None = None) -> Store:
        """A store at a path, a ``file://``, ``s3://``, ``gs://`` or ``az://`` URI, or a dataset of the hub.

        With ``timeout_s``, object storage is asked twice at most, and each request may take that long: this
        is for checks of whether the store answers. Without it, retries and timeouts suit a long run
        (``docs/waits.md``).

        Raises:
            ArtifactError: it is empty or misspelt, has another scheme, names no bucket, or names no
                dataset that the hub has.
        """
        return cls(uri, timeout_s)

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return (type(self), (self.uri,))

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    @cached_property
    def _place(self) -> Place:
        if self.uri.startswith(S3):
            return S3Place(self.uri, self._timeout_s)
        if self.uri.startswith(CLOUDS):
            return CloudPlace(self.uri, self._timeout_s)
        if self.uri.startswith(HUB):
            return HubPlace(self.uri)
        return FolderPlace(self.uri)

    @property
    def is_remote(self) -> bool:
        """Whether each read is a request."""
        return not self.uri.startswith(FILE)

    @property
    def filesystem(self) -> pafs.FileSystem:
        """For libraries that take a pyarrow filesystem; use with :meth:`absolute`."""
        return self._place.filesystem

    def absolute(self, path: str) -> str:
        """``path`` as an absolute path of the filesystem.

        Raises:
            ArtifactError: the path would leave the root.
        """
        root = self._place.root
        if not path:
            return root
        if path.startswith("/") or any(step in ("", ".", "..") for step in path.split("/")):
            raise ArtifactError(
                f"{path!r} is not a path below {self.uri}; give a plain relative one"
            )
        return f"{root}/{path}"

    def list(self, prefix: str = "") -> list[Entry]:
        """Every object below ``prefix``, sorted by path; none where there is no such folder."""
        selector = pafs.FileSelector(self.absolute(prefix), allow_not_found=True, recursive=True)
        with self._explained("list", prefix):
            infos = self.filesystem.get_file_info(selector)
        skip = len(self._place.root) + 1
        entries: list[Entry] = []
        changed_ns = self._place.listed_as_changed_ns
        # Taken off the list, because a million of them take as much memory as the entries do.
        while infos:
            info = infos.pop()
            if info.type == pafs.FileType.File and not info.base_name.startswith(TEMPORARY):
                mtime_ns = int(info.mtime_ns or 0) if changed_ns is None else changed_ns
                entries.append(Entry(info.path[skip:], int(info.size or 0), mtime_ns))
        entries.sort(key=lambda e: e.path)
        return entries

    def folders(self, prefix: str = "") -> list[str]:
        """Names of the folders directly below ``prefix``, sorted: one listing, not a recursive one."""
        selector = pafs.FileSelector(self.absolute(prefix), allow_not_found=True)
        with self._explained("list", prefix):
            infos = self.filesystem.get_file_info(selector)
        return sorted(i.base_name for i in infos if i.type == pafs.FileType.Directory)

    def has_any(self, prefix: str) -> bool:
        """Whether there is anything directly below ``prefix``: one listing, not a recursive one."""
        selector = pafs.FileSelector(self.absolute(prefix), allow_not_found=True)
        with self._explained("list", prefix):
            return bool(self.filesystem.get_file_info(selector))

    def exists(self, path: str) -> bool:
        return self.size(path) is not None

    def size(self, path: str) -> int | None:
        """Bytes of an object; None if there is none."""
        with self._explained("look up", path):
            info = self.filesystem.get_file_info(self.absolute(path))
        return int(info.size or 0) if info.type == pafs.FileType.File else None

    def read(self, path: str, admit: Callable[[int], None] = lambda _: None) -> bytes:
        """The whole object. ``admit`` gets its size before its bytes are read; it may block until they fit.

        Raises:
            ArtifactError: it does not exist or cannot be read.
        """
        with (
            self._explained("read", path),
            self.filesystem.open_input_file(self.absolute(path)) as f,
        ):
            admit(f.size())
            return f.read()

    def open_input(self, path: str, *, whole: bool = False) -> pa.NativeFile:
        """An object, to read parts of it; ``whole`` if all of it will be read.

        A file is mapped into memory, so that Arrow decodes it without a copy. On S3 and the hub each read
        is a request; with ``whole``, one request gets the whole object.

        Raises:
            ArtifactError: it does not exist or cannot be read.
        """
        with self._explained("read", path):
            if not self.is_remote:
                return pa.memory_map(self.absolute(path))
            if whole:
                return pa.BufferReader(self.read(path))
            return self.filesystem.open_input_file(self.absolute(path))

    def put(self, path: str, data: bytes | memoryview) -> None:
        """Write or replace the object. A partial object is never visible."""
        with self._explained("write", path):
            self._place.putter.put(self.absolute(path), data)

    def put_exclusive(self, path: str, data: bytes) -> bool:
        """Write the object unless it exists. Exactly one of several writers gets True."""
        with self._explained("write", path):
            return self._place.putter.put_exclusive(self.absolute(path), data)

    def copy(self, path: str, target: str) -> None:
        """Copy an object within the root. A partial object is never visible; an older one is replaced.

        On a disk both are names of the same bytes. S3 copies on its side. Where neither is possible, the
        bytes are read and put.
        """
        with self._explained("copy", path):
            is_done = self._place.putter.copy(self.absolute(path), self.absolute(target))
        if not is_done:
            self.put(target, self.read(path))

    def delete(self, prefix: str) -> None:
        """Remove the object ``prefix``, or everything below it. The root itself is refused."""
        if not prefix:
            raise ArtifactError(f"refusing to delete the whole of {self.uri}")
        with self._explained("delete", prefix):
            file_type = self.filesystem.get_file_info(self.absolute(prefix)).type
            if file_type == pafs.FileType.File:
                self.filesystem.delete_file(self.absolute(prefix))
            elif file_type != pafs.FileType.NotFound:
                self.filesystem.delete_dir(self.absolute(prefix))

    def check_writable(self) -> None:
        """Write and remove a probe.

        Raises:
            ArtifactError: the root is not writable; the message says why.
        """
        probe = f"probe-{uuid.uuid4().hex}"
        self.put(f"{probe}/probe", b"gmp-atl")
        self.delete(probe)

    def _explained(self, verb: str, path: str) -> Explained:
        return Explained(f"cannot {verb} {path or '.'!r} in {self.uri}", self._place.remedy)
