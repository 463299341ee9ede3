"""The store of all artefacts: whether it can be written, read and listed; exclusive put; clock."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime

from gmp_atl_dist.doctor.findings import Finding, fatal, warning
from gmp_atl_dist.doctor.identities import endpoint_name, identity_name
from gmp_atl_dist.doctor.storage_errors import explain, s3_code, store_date
from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.store.filesystem import Store

_CHECK = "store"
_OFF_FATAL_S = 300.0
_OFF_WARNING_S = 60.0
_NAME = "name a folder, or an s3://, gs:// or az:// URI"
_SET_CLOCK = "set this machine's clock (NTP); S3 rejects requests that are 15 minutes off"


def check_store(
    root: str, timeout_s: float, now: Callable[[], float] = time.time
) -> Iterator[Finding]:
    """Try every operation of a run in a temporary folder below the root, and delete the folder.

    An object store may take ``timeout_s`` for an answer. A request is tried twice.
    """
    try:
        store = Store.open(root, timeout_s)
    except ArtifactError as e:
        yield fatal(
            _CHECK,
            f"runtime.root {root}",
            e.message,
            _NAME,
        )
        return
    yield from _check_operations(store, f"probe-{uuid.uuid4().hex}", timeout_s, now)


def _check_operations(
    store: Store, folder: str, timeout_s: float, now: Callable[[], float]
) -> Iterator[Finding]:
    item, path, data = store_name(store), f"{folder}/probe", uuid.uuid4().bytes
    if identity := identity_name(store.uri, timeout_s):
        yield Finding(_CHECK, item, f"is asked by {identity}")
    started_s = now()
    error = _error_of(lambda: store.put(path, data))
    ended_s = now()
    if error is not None:
        if s3_code(error) == "RequestTimeTooSkewed":
            yield _refused_clock(item, error, ended_s)
        else:
            yield _failed(item, "cannot be written", error)
        return
    yield Finding(_CHECK, item, "can be reached and written")
    yield from _check_written_object(store, item, path, data, (started_s + ended_s) / 2)
    yield _check_exclusive_put(store, item, f"{folder}/exclusive")
    error = _error_of(lambda: store.delete(folder))
    if error is not None:
        yield _failed(item, "objects cannot be deleted", error)


def _check_written_object(
    store: Store, item: str, path: str, data: bytes, written_s: float
) -> Iterator[Finding]:
    """Read and list the object that was written at ``written_s`` by this machine's clock."""
    read: list[bytes] = []
    error = _error_of(lambda: read.append(store.read(path)))
    if error is not None:
        yield _failed(item, "a written object cannot be read", error)
    elif read != [data]:
        yield fatal(
            _CHECK,
            item,
            "reading an object returns other bytes than were written",
            "check for a cache or a proxy in front of the store",
        )
    else:
        yield Finding(_CHECK, item, "returns the bytes that were written")

    entries: list[int] = []
    error = _error_of(
        lambda: entries.extend(
            e.mtime_ns for e in store.list(path.rpartition("/")[0]) if e.path == path
        )
    )
    if error is not None:
        yield _failed(item, "cannot be listed", error)
    elif not entries:
        yield fatal(
            _CHECK,
            item,
            "a written object is not listed",
            "runs find finished work by listing; use a store whose listings are up to date",
        )
    else:
        yield Finding(_CHECK, item, "lists a written object")
        if entries[0]:
            yield compare_clocks(item, entries[0] / 1e9 - written_s)


def compare_clocks(item: str, ahead_s: float) -> Finding:
    """The finding for a store whose clock is ``ahead_s`` ahead of this machine's."""
    value = f"its clock is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine's"
    if abs(ahead_s) > _OFF_FATAL_S:
        return fatal("clock", item, value, _SET_CLOCK)
    if abs(ahead_s) > _OFF_WARNING_S:
        return warning("clock", item, value, _SET_CLOCK)
    return Finding("clock", item, "agrees with this machine's clock to a minute")


def store_name(store: Store) -> str:
    """The store's URI, and that of its server if it is an object store."""
    endpoint = endpoint_name(store.uri)
    return f"{store.uri} at {endpoint}" if endpoint else store.uri


def _refused_clock(item: str, error: Exception, now_s: float) -> Finding:
    date = store_date(error)
    if not date:
        value, remedy = explain(error)
        return fatal("clock", item, value, remedy)
    return compare_clocks(item, parsedate_to_datetime(date).timestamp() - now_s)


def _check_exclusive_put(store: Store, item: str, path: str) -> Finding:
    """Whether exactly one of two concurrent exclusive puts of one name succeeds."""

    def put(writer: bytes) -> bool:
        return store.put_exclusive(path, writer)

    succeeded: list[bool] = []
    with ThreadPoolExecutor(2) as writers:
        error = _error_of(lambda: succeeded.extend(writers.map(put, (b"one", b"two"))))
    remedy = (
        "no run needs it today, but programs cannot use this store to divide work; prefer a store "
        "that supports If-None-Match (Amazon S3, MinIO, Ceph, SeaweedFS), Google Cloud Storage or Azure Blob"
    )
    if error is not None:
        value, _ = explain(error)
        return warning(_CHECK, item, f"has no exclusive put ({value})", remedy)
    if sum(succeeded) != 1:
        value = f"{sum(succeeded)} of two exclusive puts succeeded: If-None-Match is ignored"
        return warning(_CHECK, item, value, remedy)
    return Finding(_CHECK, item, "exactly one of two exclusive puts succeeds")


def _failed(item: str, what: str, error: Exception) -> Finding:
    value, remedy = explain(error)
    return fatal(_CHECK, item, f"{what}: {value}", remedy)


def _error_of(call: Callable[[], object]) -> Exception | None:
    """The error that ``call`` raised. A preflight check also reports unexpected errors."""
    try:
        call()
    except Exception as e:
        return e
    return None
