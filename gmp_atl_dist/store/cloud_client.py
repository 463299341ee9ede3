"""The client of one bucket or container of Google Cloud Storage or Azure Blob: ``obstore``, with time limits.

``obstore`` is Rust's ``object_store``. It is used for all that touches these stores, so that there is one
identity, one set of time limits and one kind of error: pyarrow's filesystems for them have no conditional
create, and an exception inside of their output streams commits the bytes written so far.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.store import azure_blob, google_cloud
from gmp_atl_dist.store.azure_blob import AZ
from gmp_atl_dist.store.google_cloud import GS

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore

_ANSWER_S = 60.0
"""How long one request may take; a put of more than 8 MiB a second longer per MiB."""
_CONNECT_S = 10.0
_RETRIES = 8
_SMALL_BYTES = 8 << 20
_SLOWEST_BYTES_PER_S = 1 << 20
_STATUS = re.compile(r"status code: ((\d{3})[A-Za-z ]*):?\s*(.*)", re.DOTALL)
_TAG = r"<{0}>(.*?)</{0}>"
_HOST = re.compile(r"https?://([^/\s?]+)")
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "ResourceNotFound")
_TOKEN = "token request"


class CloudError(OSError):
    """What a cloud refused, or that it did not answer.

    ``status`` is that of HTTP, 0 without an answer. ``code`` is the cloud's own word for the error,
    "NoBucket" where bucket or container is not there, "NoToken" where the identity got no token, "Settings"
    where the environment does not let a client be opened, "" where there is none. ``scheme`` is ``gs://`` or
    ``az://``.
    """

    status = 0
    code = ""
    scheme = ""


class CloudClient:
    """Opens clients of ``obstore`` when they are needed. A pickle holds the names alone."""

    def __init__(self, scheme: str, bucket: str, timeout_s: float | None = None) -> None:
        self.scheme, self.bucket = scheme, bucket
        self._timeout_s = timeout_s
        self._opened: dict[float, GCSStore | AzureStore] = {}

    def __reduce__(self) -> tuple[type[CloudClient], tuple[str, str, float | None]]:
        return (type(self), (self.scheme, self.bucket, self._timeout_s))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CloudClient) and self.__reduce__() == other.__reduce__()

    def __hash__(self) -> int:
        return hash(self.__reduce__())

    def errors(self) -> AbstractContextManager[None]:
        """Errors of obstore in the block become those of files; see :func:`as_file_errors`."""
        return as_file_errors(self.scheme)

    def key(self, path: str) -> str:
        """The key of a path of the filesystem, which begins with the bucket."""
        return path.partition("/")[2].rstrip("/")

    @property
    def requests(self) -> GCSStore | AzureStore:
        """For everything but large puts."""
        return self._within(self._timeout_s or _ANSWER_S)

    def putting(self, size: int) -> GCSStore | AzureStore:
        """For a put of ``size`` bytes, which may take longer than other requests."""
        if size <= _SMALL_BYTES or self._timeout_s is not None:
            return self.requests
        # Rounded up to a power of two, so that few clients are opened.
        return self._within(_ANSWER_S + (1 << size.bit_length()) / _SLOWEST_BYTES_PER_S)

    def _within(self, limit_s: float) -> GCSStore | AzureStore:
        _refuse_fork()
        if limit_s not in self._opened:
            self._opened[limit_s] = self._open(limit_s)
        return self._opened[limit_s]

    def _open(self, limit_s: float) -> GCSStore | AzureStore:
        client: dict[str, Any] = {
            "timeout": timedelta(seconds=limit_s),
            "connect_timeout": timedelta(seconds=min(limit_s, _CONNECT_S)),
        }
        retry: dict[str, Any] = {"max_retries": _RETRIES}
        if self._timeout_s is not None:
            retry = {"max_retries": 1, "retry_timeout": timedelta(seconds=limit_s)}
        opening = google_cloud.open_bucket if self.scheme == GS else azure_blob.open_container
        try:
            with self.errors():
                return opening(self.bucket, client, retry)
        except ImportError as e:
            raise ArtifactError(
                f"{self.scheme}{self.bucket} needs the package obstore, which is not installed; install the "
                f"extra clouds here and on every node: pip install 'gmp_atl_dist[clouds]'"
            ) from e
        except CloudError as e:
            raise ArtifactError(f"{self.scheme}{self.bucket} cannot be opened: {e}") from e


_process: list[int] = []


def _refuse_fork() -> None:
    """obstore's threads do not live on in a fork, where each call would wait for ever."""
    if not _process:
        _process.append(os.getpid())
    if _process[0] != os.getpid():
        raise RuntimeError(
            f"process {os.getpid()} is a fork of {_process[0]}, which has used {GS} or {AZ} before; start it "
            f"as a process of its own (spawn or forkserver)"
        )


@contextmanager
def as_file_errors(scheme: str) -> Iterator[None]:
    """Errors of ``obstore`` as errors of files, in a line and without its debugging output.

    Raises:
        FileNotFoundError: the object is not there, while the bucket is.
        FileExistsError: a put with ``mode="create"`` found an object.
        CloudError: anything else.
    """
    try:
        from obstore.exceptions import AlreadyExistsError, BaseError
    except ImportError:
        # What is in the block says so.
        yield
        return
    try:
        yield
    except FileNotFoundError as e:
        error = _cloud_error(e, scheme)
        if error.code == "NoBucket":
            raise error from e
        raise FileNotFoundError(str(error)) from e
    except AlreadyExistsError as e:
        raise FileExistsError(str(_cloud_error(e, scheme))) from e
    except (BaseError, ValueError) as e:
        raise _cloud_error(e, scheme) from e


def _cloud_error(e: BaseException, scheme: str) -> CloudError:
    text = str(e).partition("Debug source")[0].strip()
    answer = _STATUS.search(text)
    status, body = (int(answer[2]), answer[3]) if answer else (0, "")
    code, message = _tag("Code", body), _tag("Message", body) or body
    if details := _tag("Details", body):
        message = f"{message} {details}"
    message = " ".join(message.split())[:300]
    host = _HOST.search(text)
    where = host[1] if host else "the server"
    if _TOKEN in text:
        code, message = (
            "NoToken",
            f"no token from {where}: {answer[1] if answer else _tail(text)} {message}",
        )
    elif answer:
        # The answer to HEAD has no body, so no code and no message.
        message = " ".join(filter(None, (answer[1].strip(), code, message)))
        code = "NoBucket" if code in _NO_BUCKET else code
    elif host:
        message = f"{where} does not answer: {_tail(text)}"
    else:
        code, message = "Settings", " ".join(text.split())[:300]
    error = CloudError(message.strip())
    error.status, error.code, error.scheme = status, code, scheme
    return error


def _tag(name: str, body: str) -> str:
    found = re.search(_TAG.format(name), body, re.DOTALL)
    return found[1].strip() if found else ""


def _tail(text: str) -> str:
    """What is wrong, behind the request and its URL, which may be signed."""
    return " ".join(text.rpartition(" - ")[2].split())[:200]
