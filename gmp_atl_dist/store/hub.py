"""Datasets of the Hugging Face hub as a place to read from: ``hf://datasets/OWNER/NAME@REVISION/FOLDER``.

A revision is a branch, a tag or a commit, by default the branch ``main``. ``~parquet`` is the branch that the
hub converts to Parquet itself (``refs/convert/parquet``). Files are read by ``HfFileSystem`` of
``huggingface_hub``, in ranges; no code of a dataset is executed, and nothing is written to the hub.
https://huggingface.co/docs/huggingface_hub/guides/hf_file_system
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.fs as pafs

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.store.places import Putter

if TYPE_CHECKING:
    from huggingface_hub import HfApi

HUB = "hf://"
_PLACE = re.compile(
    r"hf://datasets/(?P<repo>[^/@]+/[^/@]+)"
    r"(?:@(?P<revision>refs/(?:convert|pr)/[^/]+|[^/]+))?(?:/(?P<folder>.+))?"
)
_SPELLED = (
    "write hf://datasets/OWNER/NAME, hf://datasets/OWNER/NAME@REVISION or either with /FOLDER"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DEFAULT_REVISION = "main"
_CONVERTED = {"~parquet": "refs/convert/parquet"}
_TIMEOUT_S = 30.0
_SILENT_S = 60.0
ACCESS = (
    "check the name; for a private or gated dataset accept its terms on the hub and set HF_TOKEN; without a "
    "network copy the shards (hf download --repo-type dataset) and set runtime.corpus to the copy"
)


def pinned_hub_uri(uri: str, timeout_s: float | None = None) -> str:
    """``uri`` with the commit that its revision means now, so that every process reads the same files.

    A commit in it is kept, and the hub is not asked.

    Raises:
        ArtifactError: it is misspelt, or the hub has no such dataset or revision, or does not answer.
    """
    match = _PLACE.fullmatch(uri.rstrip("/"))
    if match is None:
        raise ArtifactError(f"{uri!r} is no dataset of the hub; {_SPELLED}")
    revision = match["revision"] or _DEFAULT_REVISION
    revision = _CONVERTED.get(revision, revision)
    if not _COMMIT.fullmatch(revision):
        revision = _commit_of(_endpoint(), match["repo"], revision, timeout_s or _TIMEOUT_S)
    folder = f"/{match['folder']}" if match["folder"] else ""
    return f"{HUB}datasets/{match['repo']}@{revision}{folder}"


class HubPlace:
    """A dataset by its pinned URI."""

    remedy = ACCESS

    def __init__(self, uri: str) -> None:
        self.root = uri.removeprefix(HUB).rstrip("/")
        self.listed_as_changed_ns = _change_ns(uri)
        self.putter: Putter = ReadOnlyHub()

    @cached_property
    def filesystem(self) -> pafs.FileSystem:
        from huggingface_hub import HfFileSystem

        return pafs.PyFileSystem(_Handler(HfFileSystem(endpoint=_endpoint())))


class _Handler(pafs.FSSpecHandler):
    """``HfFileSystem`` for Arrow, with lost connections as errors of files."""

    def get_file_info(self, paths: Any) -> Any:
        with _as_file_errors():
            return super().get_file_info(paths)

    def get_file_info_selector(self, selector: Any) -> Any:
        with _as_file_errors():
            return super().get_file_info_selector(selector)

    def open_input_file(self, path: Any) -> Any:
        with _as_file_errors():
            if not self.fs.isfile(path):
                raise FileNotFoundError(path)
            return pa.PythonFile(_File(self.fs.open(path, "rb")), mode="r")

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        """A token may have the right to write, and ``HfFileSystem`` would make a commit."""
        raise ArtifactError(f"cannot change {', '.join(map(str, args))}: {_READ_ONLY}")

    create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = _refuse
    delete_file = move = copy_file = open_output_stream = open_append_stream = _refuse


class _File:
    """An open file of the hub."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        with _as_file_errors():
            return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def limit_waits() -> None:
    """From now on a request to the hub waits for its next byte for at most ``_SILENT_S``.

    Its library asks for listings and commits without a limit, and makes its client anew in a forked process
    (https://huggingface.co/docs/huggingface_hub/package_reference/utilities).
    """
    from huggingface_hub import get_session

    client = get_session()
    hooks = client.event_hooks
    if _limit not in hooks["request"]:
        client.event_hooks = {**hooks, "request": [*hooks["request"], _limit]}


def _limit(request: Any) -> None:
    """Called by the client of HTTP before it sends a request."""
    asked = request.extensions.get("timeout", {})
    request.extensions["timeout"] = {
        wait: _SILENT_S if asked.get(wait) is None else asked[wait]
        for wait in ("connect", "read", "write", "pool")
    }


@contextmanager
def _as_file_errors() -> Iterator[None]:
    """``HTTPError`` of the client of HTTP is no ``OSError``, except where the hub has answered."""
    from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage]

    limit_waits()
    try:
        yield
    except HTTPError as e:
        if isinstance(e, OSError):
            raise
        raise ConnectionError(f"{type(e).__name__}: {e}") from e


def _change_ns(uri: str) -> int:
    """A number of the commit of a pinned ``uri``, where other stores have the time of a change.

    The hub lists no times. Another commit must be another listing, because a file may keep its size.
    """
    match = _PLACE.fullmatch(uri)
    assert match is not None, "it is pinned"
    return int(match["revision"][:15], 16)


class ReadOnlyHub:
    """What writes to the hub: nothing."""

    def put(self, path: str, data: bytes | memoryview) -> None:
        raise ArtifactError(f"cannot write {path!r}: {_READ_ONLY}")

    def copy(self, path: str, target: str) -> bool:
        raise ArtifactError(f"cannot write {target!r}: {_READ_ONLY}")

    def put_exclusive(self, path: str, data: bytes) -> bool:
        raise ArtifactError(f"cannot write {path!r}: {_READ_ONLY}")


_READ_ONLY = "the hub is read only here; give a folder, s3://, gs:// or az:// as runtime.root"


def _endpoint() -> str | None:
    """The hub, or a mirror of it."""
    return os.environ.get("HF_ENDPOINT") or None


@cache
def _commit_of(endpoint: str | None, repo: str, revision: str, timeout_s: float) -> str:
    """Asked once per process, so that a run does not see two commits."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        with _as_file_errors():
            return _asked(HfApi(endpoint=endpoint), repo, revision, timeout_s)
    except HFValidationError as e:
        raise ArtifactError(f"{repo!r} is no name of a dataset: {e}; {_SPELLED}") from e
    except RevisionNotFoundError as e:
        raise ArtifactError(
            f"dataset {repo} has no revision {revision!r}; name a branch, a tag or a commit after @"
        ) from e
    except GatedRepoError as e:
        raise ArtifactError(f"dataset {repo} is gated; {ACCESS}") from e
    except RepositoryNotFoundError as e:
        raise ArtifactError(f"the hub shows no dataset {repo}; {ACCESS}") from e
    except OSError as e:
        # An answer with another status, no connection, or OfflineModeIsEnabled.
        raise ArtifactError(
            f"the hub does not answer for dataset {repo} at {revision!r}: {type(e).__name__}: {e}; {ACCESS}"
        ) from e


def _asked(api: HfApi, repo: str, revision: str, timeout_s: float) -> str:
    found = api.dataset_info(repo, revision=revision, timeout=timeout_s)
    if found.sha is None:
        raise ArtifactError(f"the hub names no commit of dataset {repo} at {revision!r}")
    return found.sha
