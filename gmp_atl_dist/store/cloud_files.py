"""A bucket or container as a filesystem of Arrow, so that its readers get ranges of objects.

Paths begin with the bucket, as those of Arrow's S3 do. There are no folders: one exists as long as an object
lies below it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from gmp_atl_dist.store.cloud_client import CloudClient

_LISTED_AT_ONCE = 1000
_MOST_ROUNDS = 5
"""How often a folder is listed again to delete what others delete, or write, at the same time."""


class CloudFiles(pafs.FileSystemHandler):
    """The filesystem of one client."""

    def __init__(self, client: CloudClient) -> None:
        self._client = client

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CloudFiles) and self._client == other._client

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self._client)

    def get_type_name(self) -> str:
        return self._client.scheme.removesuffix("://")

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> list[pafs.FileInfo]:
        return [self._info(path) for path in paths]

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        base = selector.base_dir.rstrip("/")
        with self._client.errors():
            found = self._below(base) if selector.recursive else self._directly_below(base)
        if not found and not selector.allow_not_found:
            raise FileNotFoundError(f"{base} is not there")
        return found

    def open_input_file(self, path: str) -> pa.NativeFile:
        key = self._client.key(path)
        with self._client.errors():
            size = int(self._client.requests.head(key)["size"])
        return pa.PythonFile(_Object(self._client, key, size), mode="r")

    def open_input_stream(self, path: str) -> pa.NativeFile:
        return self.open_input_file(path)

    def open_output_stream(self, path: str, metadata: Mapping[str, str] | None) -> pa.NativeFile:
        """For Ray's own small files: all is put when it is closed."""
        return pa.PythonFile(_Upload(self._client, self._client.key(path)), mode="w")

    def open_append_stream(self, path: str, metadata: Mapping[str, str] | None) -> pa.NativeFile:
        raise NotImplementedError(f"{path}: objects cannot be appended to")

    def create_dir(self, path: str, recursive: bool) -> None:
        """Nothing: an object in it makes it."""

    def delete_dir(self, path: str) -> None:
        self._delete_below(path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        self._delete_below(path)

    def delete_root_dir_contents(self) -> None:
        raise NotImplementedError("refusing to delete a whole bucket")

    def delete_file(self, path: str) -> None:
        with self._client.errors():
            self._client.requests.delete(self._client.key(path))

    def move(self, src: str, dest: str) -> None:
        self.copy_file(src, dest)
        self.delete_file(src)

    def copy_file(self, src: str, dest: str) -> None:
        key, target = self._client.key(src), self._client.key(dest)
        with self._client.errors():
            data = self._client.requests.get(key).bytes()
            self._client.putting(len(data)).put(target, data, use_multipart=False)

    def _info(self, path: str) -> pafs.FileInfo:
        key = self._client.key(path)
        with self._client.errors():
            if key:
                try:
                    return _file(path, self._client.requests.head(key))
                except FileNotFoundError:
                    # It may be a folder.
                    pass
            is_folder = not key or any(True for _ in self._objects(key))
        return pafs.FileInfo(path, pafs.FileType.Directory if is_folder else pafs.FileType.NotFound)

    def _objects(self, key: str) -> Iterator[Any]:
        """Of every object below ``key`` its path, size and time of change."""
        for chunk in self._client.requests.list(key or None, chunk_size=_LISTED_AT_ONCE):
            yield from chunk

    def _below(self, base: str) -> list[pafs.FileInfo]:
        bucket = self._client.bucket
        files = [_file(f"{bucket}/{o['path']}", o) for o in self._objects(self._client.key(base))]
        folders = {folder for file in files for folder in _folders_between(base, file.path)}
        return files + [pafs.FileInfo(path, pafs.FileType.Directory) for path in sorted(folders)]

    def _directly_below(self, base: str) -> list[pafs.FileInfo]:
        bucket = self._client.bucket
        found = self._client.requests.list_with_delimiter(self._client.key(base) or None)
        folders = [f"{bucket}/{path}" for path in found["common_prefixes"]]
        files: list[Any] = list(found["objects"])
        return [pafs.FileInfo(path.rstrip("/"), pafs.FileType.Directory) for path in folders] + [
            _file(f"{bucket}/{o['path']}", o) for o in files
        ]

    def _delete_below(self, path: str) -> None:
        """Every object below ``path``; one that somebody else has deleted meanwhile is no error."""
        for turn in range(_MOST_ROUNDS):
            with self._client.errors():
                keys = [o["path"] for o in self._objects(self._client.key(path))]
                if not keys:
                    return
                try:
                    self._client.requests.delete(keys)
                except FileNotFoundError:
                    # The others of the list may be there still.
                    if turn == _MOST_ROUNDS - 1:
                        raise
                else:
                    return


def _file(path: str, meta: Any) -> pafs.FileInfo:
    return pafs.FileInfo(
        path, pafs.FileType.File, mtime=meta["last_modified"], size=int(meta["size"])
    )


def _folders_between(base: str, path: str) -> Iterator[str]:
    """Of ``a`` and ``a/b/c/d``: ``a/b`` and ``a/b/c``."""
    steps = path[len(base) + 1 :].split("/")
    for n, _ in enumerate(pairwise(steps), start=1):
        yield "/".join((base, *steps[:n]))


class _Object(io.RawIOBase):
    """An open object. Each read is one request for a range."""

    def __init__(self, client: CloudClient, key: str, size: int) -> None:
        super().__init__()
        self._client, self._key, self._size, self._at = client, key, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def read(self, size: int = -1) -> Any:
        """Bytes, or a buffer of ``obstore``, which Arrow takes without a copy."""
        left = max(0, self._size - self._at)
        length = left if size < 0 else min(size, left)
        if length == 0:
            return b""
        with self._client.errors():
            data = self._client.requests.get_range(self._key, start=self._at, length=length)
        self._at += len(data)
        return data


class _Upload(io.BytesIO):
    """Bytes that become an object when they are complete."""

    def __init__(self, client: CloudClient, key: str) -> None:
        super().__init__()
        self._client, self._key = client, key

    def close(self) -> None:
        if not self.closed:
            data = self.getvalue()
            super().close()
            with self._client.errors():
                self._client.putting(len(data)).put(self._key, data, use_multipart=False)
