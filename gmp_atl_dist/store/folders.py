"""A folder of a disk as a place: a temporary file that is then renamed or linked is a whole object."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from functools import cached_property

import pyarrow.fs as pafs

from gmp_atl_dist.store.places import TEMPORARY, Putter

FILE = "file://"


class FolderPlace:
    """A folder by its ``file://`` URI."""

    remedy = "check that the root exists, and that you may read and write it"
    listed_as_changed_ns = None

    def __init__(self, uri: str) -> None:
        self.root = uri.removeprefix(FILE).rstrip("/")
        self.putter: Putter = FolderPutter()

    @cached_property
    def filesystem(self) -> pafs.FileSystem:
        return pafs.LocalFileSystem()


class FolderPutter:
    """Atomic on POSIX: written and synced under another name first, and then renamed or linked."""

    def put(self, path: str, data: bytes | memoryview) -> None:
        temporary = self._write_temporary(path, data)
        try:
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
        self._sync_folder(path)

    def put_exclusive(self, path: str, data: bytes) -> bool:
        temporary = self._write_temporary(path, data)
        try:
            # link() fails if the name exists; rename() does not.
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            os.unlink(temporary)
        self._sync_folder(path)
        return True

    def copy(self, path: str, target: str) -> bool:
        folder = os.path.dirname(target)
        os.makedirs(folder, exist_ok=True)
        temporary = os.path.join(folder, f"{TEMPORARY}{uuid.uuid4().hex}")
        try:
            # A second name of the same bytes needs no room on a full disk. No object is changed in place.
            os.link(path, temporary)
        except FileNotFoundError:
            raise
        except OSError:
            return False
        os.replace(temporary, target)
        # If the target was the same file already, rename() leaves both names.
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        self._sync_folder(target)
        return True

    def _write_temporary(self, path: str, data: bytes | memoryview) -> str:
        folder = os.path.dirname(path)
        os.makedirs(folder, exist_ok=True)
        temporary = os.path.join(folder, f"{TEMPORARY}{uuid.uuid4().hex}")
        try:
            with open(temporary, "xb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        return temporary

    def _sync_folder(self, path: str) -> None:
        descriptor = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
