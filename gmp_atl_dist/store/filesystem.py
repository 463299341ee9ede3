"""A root URI, and its few operations: list, read, put of whole objects, exclusive put, delete.

Lists and reads use ``pyarrow.fs``. Puts do not, because an exception inside pyarrow's output stream still
commits the bytes written so far. On S3 an object is written by one ``PutObject`` of boto3, on a disk as a
temporary file that is then renamed. A partial object is never visible. A dataset of the Hugging Face hub
(``hub.py``) can be read, and not written.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast
from urllib.parse import SplitResult, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.store.hub import (
    ACCESS,
    HUB,
    ReadOnlyHub,
    hub_change_ns,
    hub_connection,
    pinned_hub_uri,
)
from gmp_atl_dist.uris import uri_problem

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_TEMPORARY = ".tmp-"
# Limits of one request to S3 in a long run. An endpoint that takes connections and never answers costs a read
# about a minute (5 x 10 s and the pauses between), and a put about eight.
_CONNECT_S = 10.0
_READ_SILENCE_S = 10.0
_PUT_SILENCE_S = 60.0
_ATTEMPTS_OF_READS = 5
_ATTEMPTS_OF_PUTS = 8
# Threads that store parts may need their first client at the same time, and boto3 fails at that now and then.
_making_client = threading.Lock()


@dataclass(frozen=True, slots=True)
class Entry:
    """An object below a root: its path relative to it, bytes, and time of change."""

    path: str
    size: int
    mtime_ns: int


class UnreadableError(ArtifactError):
    """One object does not exist or may not be read, while the store itself answers."""


class _Putter(Protocol):
    def put(self, path: str, data: bytes | memoryview) -> None: ...

    def copy(self, path: str, target: str) -> bool: ...

    def put_exclusive(self, path: str, data: bytes) -> bool: ...


class _FolderPutter:
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
        temporary = os.path.join(folder, f"{_TEMPORARY}{uuid.uuid4().hex}")
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
        temporary = os.path.join(folder, f"{_TEMPORARY}{uuid.uuid4().hex}")
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


class _S3Putter:
    """One PutObject per object; S3 shows it completely or not at all."""

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s

    @cached_property
    def _client(self) -> S3Client:
        import boto3
        from botocore.config import Config

        # An empty AWS_CA_BUNDLE makes boto3 look for a certificate file with no name.
        if os.environ.get("AWS_CA_BUNDLE") == "":
            del os.environ["AWS_CA_BUNDLE"]
        # boto3 reads it itself, and would say what is wrong in an error of another type.
        _endpoint()
        config = Config(
            retries={"max_attempts": _ATTEMPTS_OF_PUTS, "mode": "standard"},
            connect_timeout=_CONNECT_S,
            read_timeout=_PUT_SILENCE_S,
        )
        if self._timeout_s is not None:
            limits = {"connect_timeout": self._timeout_s, "read_timeout": self._timeout_s}
            config = config.merge(Config(retries={"total_max_attempts": 2}, **limits))
        with _making_client:
            return cast("S3Client", boto3.client("s3", config=config))

    def put(self, path: str, data: bytes | memoryview) -> None:
        bucket, _, key = path.partition("/")
        # boto3 takes no other buffer.
        self._client.put_object(Bucket=bucket, Key=key, Body=bytes(data))

    def copy(self, path: str, target: str) -> bool:
        from botocore.exceptions import ClientError

        bucket, _, key = target.partition("/")
        from_bucket, _, from_key = path.partition("/")
        try:
            self._client.copy_object(
                Bucket=bucket, Key=key, CopySource={"Bucket": from_bucket, "Key": from_key}
            )
        except ClientError as e:
            # A server or a policy may not allow it. What cannot be read is an error of the reading.
            if e.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500) >= 500:
                raise
            return False
        return True

    def put_exclusive(self, path: str, data: bytes) -> bool:
        from botocore.exceptions import ClientError

        bucket, _, key = path.partition("/")
        try:
            self._client.put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
        except ClientError as e:
            if e.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in (409, 412):
                return False
            raise
        return True


class Store:
    """Objects below one root. Cheap to create. A pickle holds the URI alone; the connection is made again."""

    def __init__(self, uri: str, timeout_s: float | None = None) -> None:
        self.uri = normalize_uri(uri)
        if self.uri.startswith(HUB):
            self.uri = pinned_hub_uri(self.uri, timeout_s)
        self._timeout_s = timeout_s

    @classmethod
    def open(cls, uri: str, timeout_s: float | None = None) -> Store:
        """A store at a plain path, a ``file://`` or an ``s3://bucket/prefix`` URI, or a dataset of the hub.

        With ``timeout_s``, S3 is asked twice at most, and each request may take that long: this is for
        checks of whether the store answers. Without it, retries and timeouts suit a long run: a read is tried
        5 times, a put 8 times, and each try ends after 10 s (60 s) without a byte.

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
    def _connection(self) -> tuple[pafs.FileSystem, str]:
        if self.uri.startswith("s3://"):
            bucket = self.uri.removeprefix("s3://")
            limit_s, attempts = self._timeout_s, 2
            s3 = pafs.S3FileSystem(
                **_s3_options(),
                connect_timeout=_CONNECT_S if limit_s is None else limit_s,
                # On Linux: seconds without a byte, not seconds of the whole request.
                request_timeout=_READ_SILENCE_S if limit_s is None else limit_s,
                retry_strategy=pafs.AwsStandardS3RetryStrategy(
                    max_attempts=_ATTEMPTS_OF_READS if limit_s is None else attempts
                ),
            )
            return s3, bucket
        if self.uri.startswith(HUB):
            return hub_connection(self.uri)
        return pafs.LocalFileSystem(), self.uri.removeprefix("file://")

    @cached_property
    def _putter(self) -> _Putter:
        if self.uri.startswith(HUB):
            return ReadOnlyHub()
        return _S3Putter(self._timeout_s) if self.uri.startswith("s3://") else _FolderPutter()

    @property
    def is_remote(self) -> bool:
        """Whether each read is a request."""
        return not self.uri.startswith("file://")

    @property
    def filesystem(self) -> pafs.FileSystem:
        """For libraries that take a pyarrow filesystem; use with :meth:`absolute`."""
        return self._connection[0]

    def absolute(self, path: str) -> str:
        """``path`` as an absolute path of the filesystem.

        Raises:
            ArtifactError: the path would leave the root.
        """
        root = self._connection[1].rstrip("/")
        if not path:
            return root
        if path.startswith("/") or any(step in ("", ".", "..") for step in path.split("/")):
            raise ArtifactError(
                f"{path!r} is not a path below {self.uri}; give a plain relative one"
            )
        return f"{root}/{path}"

    def list(self, prefix: str = "") -> list[Entry]:
        """Every object below ``prefix``, sorted by path; none where there is no such folder."""
        filesystem, root = self._connection
        selector = pafs.FileSelector(self.absolute(prefix), allow_not_found=True, recursive=True)
        with self._explained("list", prefix):
            infos = filesystem.get_file_info(selector)
        skip = len(root.rstrip("/")) + 1
        entries: list[Entry] = []
        changed_ns = hub_change_ns(self.uri) if self.uri.startswith(HUB) else None
        # Taken off the list, because a million of them take as much memory as the entries do.
        while infos:
            info = infos.pop()
            if info.type == pafs.FileType.File and not info.base_name.startswith(_TEMPORARY):
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
        with self._explained("look up", path):
            info = self.filesystem.get_file_info(self.absolute(path))
        return info.type == pafs.FileType.File

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
            self._putter.put(self.absolute(path), data)

    def put_exclusive(self, path: str, data: bytes) -> bool:
        """Write the object unless it exists. Exactly one of several writers gets True."""
        with self._explained("write", path):
            return self._putter.put_exclusive(self.absolute(path), data)

    def copy(self, path: str, target: str) -> None:
        """Copy an object within the root. A partial object is never visible; an older one is replaced.

        On a disk both are names of the same bytes. S3 copies on its side. Where neither is possible, the
        bytes are read and put.
        """
        with self._explained("copy", path):
            is_done = self._putter.copy(self.absolute(path), self.absolute(target))
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

    def _explained(self, verb: str, path: str) -> _Explained:
        remedy = ACCESS if self.uri.startswith(HUB) else _CHECK_ROOT
        return _Explained(f"cannot {verb} {path or '.'!r} in {self.uri}", remedy)


_CHECK_ROOT = (
    "check that the root exists, that you may read and write it, and for s3:// the AWS_* "
    "environment"
)


class _Explained:
    """Turns errors of the storage libraries into one that names the object and what to check."""

    def __init__(self, action: str, remedy: str) -> None:
        self._action, self._remedy = action, remedy

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, _: object
    ) -> None:
        if e is None or isinstance(e, ArtifactError):
            return
        from botocore.exceptions import BotoCoreError, ClientError

        if isinstance(e, FileNotFoundError):
            raise UnreadableError(f"{self._action}: it is not there") from e
        if isinstance(e, (OSError, pa.ArrowException, BotoCoreError, ClientError)):
            # S3 does not tell whether one object or all of them may not be read; a disk does.
            kind_of = UnreadableError if isinstance(e, PermissionError) else ArtifactError
            raise kind_of(f"{self._action}: {type(e).__name__}: {e}; {self._remedy}") from e


def normalize_uri(uri: str) -> str:
    """``file:///abs/path``, ``s3://bucket/prefix`` or ``hf://datasets/...`` for any accepted spelling.

    Raises:
        ArtifactError: it is empty or misspelt, has another scheme, or names no bucket.
    """
    if problem := uri_problem(uri):
        raise ArtifactError(f"{uri!r} {problem}")
    scheme = urlsplit(uri).scheme if "://" in uri else ""
    if scheme == "s3":
        if not urlsplit(uri).netloc:
            raise ArtifactError(f"{uri!r} names no bucket; write s3://bucket/prefix")
        return uri.rstrip("/")
    if f"{scheme}://" == HUB:
        return uri.rstrip("/")
    if scheme == "file":
        return "file://" + os.path.abspath(uri.removeprefix("file://"))
    if scheme:
        raise ArtifactError(
            f"{uri!r}: scheme {scheme!r} is not known; use a folder, file:// or s3:// (for a corpus "
            f"also hf://datasets/)"
        )
    return "file://" + os.path.abspath(Path(uri).expanduser())


def _endpoint() -> SplitResult | None:
    """The endpoint of S3 that the environment names; None for Amazon's own.

    Raises:
        ArtifactError: it is no URL of a server. The message holds no password that may be in it.
    """
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    name = next((name for name in names if os.environ.get(name)), None)
    if name is None:
        return None
    parts = urlsplit(os.environ[name])
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ArtifactError(
            f"{name} is no URL of a server; write http://HOST:PORT or https://HOST:PORT"
        )
    if "@" in parts.netloc:
        raise ArtifactError(
            f"{name} has a user or password, which S3 does not take there; write "
            f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}, and set AWS_ACCESS_KEY_ID and "
            f"AWS_SECRET_ACCESS_KEY"
        )
    return parts


def _s3_options() -> dict[str, str]:
    """Options that pyarrow does not read from the environment: the endpoint and its scheme."""
    parts = _endpoint()
    if parts is None:
        return {}
    options = {"endpoint_override": parts.netloc, "scheme": parts.scheme}
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return options | ({"region": region} if region else {})
