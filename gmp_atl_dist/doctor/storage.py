"""The store of all artefacts: reached, written, read, listed; its exclusive put and its clock."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime

from gmp_atl_dist.doctor.findings import Finding, fatal, warning
from gmp_atl_dist.doctor.storage_errors import endpoint_name, explained, s3_code, store_date
from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.store.filesystem import Store

_CHECK = "store"
_OFF_FATAL_S = 300.0
_OFF_WARNING_S = 60.0
_SET_CLOCK = "set this machine's clock (NTP); S3 refuses requests that are 15 minutes off"


def check_store(
    root: str, timeout_s: float, now: Callable[[], float] = time.time
) -> Iterator[Finding]:
    """Try everything that a run does with its root, below a folder of its own that goes again.

    ``timeout_s`` is how long S3 may take for an answer; it is asked twice.
    """
    try:
        store = Store.open(root, timeout_s)
    except ArtifactError as e:
        yield fatal(_CHECK, f"runtime.root {root}", e.message, "name a folder or an s3:// URI")
        return
    yield from _try(store, f"probe-{uuid.uuid4().hex}", now)


def _try(store: Store, folder: str, now: Callable[[], float]) -> Iterator[Finding]:
    item, path, data = where(store), f"{folder}/probe", uuid.uuid4().bytes
    began_s = now()
    error = _attempt(lambda: store.put(path, data))
    ended_s = now()
    if error is not None:
        if s3_code(error) == "RequestTimeTooSkewed":
            yield _refused_clock(item, error, ended_s)
        else:
            yield _failed(item, "cannot be written", error)
        return
    yield Finding(_CHECK, item, "is reached and writable")
    yield from _try_written(store, item, path, data, (began_s + ended_s) / 2)
    yield _exclusive(store, item, f"{folder}/exclusive")
    error = _attempt(lambda: store.delete(folder))
    if error is not None:
        yield _failed(item, "nothing can be deleted", error)


def _try_written(
    store: Store, item: str, path: str, data: bytes, written_s: float
) -> Iterator[Finding]:
    """Read and list the object that was written at ``written_s`` by our clock."""
    read: list[bytes] = []
    error = _attempt(lambda: read.append(store.read(path)))
    if error is not None:
        yield _failed(item, "what was written cannot be read", error)
    elif read != [data]:
        yield fatal(
            _CHECK,
            item,
            "what was written reads back as something else",
            "look for a cache or a proxy in front of the store",
        )
    else:
        yield Finding(_CHECK, item, "reads back what was written")

    entries: list[int] = []
    error = _attempt(
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
            "an object that was written is not listed",
            "runs find what is done by listing; use a store whose listings are up to date",
        )
    else:
        yield Finding(_CHECK, item, "lists what was written")
        if entries[0]:
            yield compare_clocks(item, entries[0] / 1e9 - written_s)


def compare_clocks(item: str, ahead_s: float) -> Finding:
    """What it means that the store's clock is so far ahead of this machine's."""
    value = f"its clock is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} ours"
    if abs(ahead_s) > _OFF_FATAL_S:
        return fatal("clock", item, value, _SET_CLOCK)
    if abs(ahead_s) > _OFF_WARNING_S:
        return warning("clock", item, value, _SET_CLOCK)
    return Finding("clock", item, "agrees with ours to a minute")


def where(store: Store) -> str:
    """A store by its URI, and for S3 its endpoint."""
    return f"{store.uri} at {endpoint_name()}" if store.uri.startswith("s3://") else store.uri


def _refused_clock(item: str, error: Exception, now_s: float) -> Finding:
    date = store_date(error)
    if not date:
        value, remedy = explained(error)
        return fatal("clock", item, value, remedy)
    return compare_clocks(item, parsedate_to_datetime(date).timestamp() - now_s)


def _exclusive(store: Store, item: str, path: str) -> Finding:
    """Of two writers of one name exactly one may win."""

    def put(writer: bytes) -> bool:
        return store.put_exclusive(path, writer)

    won: list[bool] = []
    with ThreadPoolExecutor(2) as writers:
        error = _attempt(lambda: won.extend(writers.map(put, (b"one", b"two"))))
    remedy = (
        "no run needs it today, but two programs cannot agree in this store on who does what; "
        "prefer one that knows If-None-Match (Amazon S3, MinIO, Ceph, SeaweedFS do)"
    )
    if error is not None:
        value, _ = explained(error)
        return warning(_CHECK, item, f"has no exclusive put ({value})", remedy)
    if sum(won) != 1:
        value = f"of two exclusive puts of one name {sum(won)} won: If-None-Match is ignored"
        return warning(_CHECK, item, value, remedy)
    return Finding(_CHECK, item, "of two exclusive puts one wins")


def _failed(item: str, what: str, error: Exception) -> Finding:
    value, remedy = explained(error)
    return fatal(_CHECK, item, f"{what}: {value}", remedy)


def _attempt(work: Callable[[], object]) -> Exception | None:
    """What it raised. A preflight reports what it does not know as well, so it catches all."""
    try:
        work()
    except Exception as e:
        return e
    return None
