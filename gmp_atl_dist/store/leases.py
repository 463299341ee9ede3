"""Leases: what a command uses that is no run, such as ``gmp-atl predict --ray``.

A run has a record that names its artefacts (``store/runs.py``). Other commands that work for long put
``leases/NAME.json`` below the root and renew it. ``gc``, ``repair`` and ``runs rm`` leave alone what a lease
names. A command that is killed cannot take its lease back, so a lease that is not renewed runs out.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pydantic import BaseModel, ConfigDict, ValidationError

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.run_state import CLOCKS_DIFFER_S, LOST_AFTER_S, SEEN_EVERY_S, process_lives

LEASES = "leases"
"""The folder below a root."""
_log = logging.getLogger(__name__)


class Lease(BaseModel):
    """What one process uses. Times are Unix time in seconds, by the clock of ``host``."""

    # A later release may add fields; an older one ignores them.
    model_config = ConfigDict(frozen=True, extra="ignore")

    what: str
    """The command, as in ``predict --ray``."""
    host: str
    pid: int
    started_s: float
    seen_s: float
    fingerprints: tuple[str, ...] = ()

    @property
    def holder(self) -> str:
        """Who holds it, for people."""
        return f"{self.what} on {self.host} (process {self.pid})"

    def is_live(self, now_s: float) -> bool:
        """Whether its process may work at Unix time ``now_s``.

        On its own machine the process is looked up. Elsewhere the time decides, with room for two clocks
        that differ by :data:`~gmp_atl_dist.store.run_state.CLOCKS_DIFFER_S`.
        """
        if self.host == socket.gethostname():
            return process_lives(self.pid, self.started_s)
        return now_s - self.seen_s < LOST_AFTER_S + CLOCKS_DIFFER_S


class LeaseKeeper:
    """Holds the lease of this process on artefacts of one root, and renews it in a thread.

    A root that cannot be written gets no lease: the command works all the same, and the log says so.
    """

    def __init__(self, store: Store, what: str, *, every_s: float = SEEN_EVERY_S) -> None:
        self._store = store
        self._every_s = every_s
        self._over = threading.Event()
        self._lock = threading.Lock()
        now_s = time.time()
        host, pid = socket.gethostname(), os.getpid()
        self._lease = Lease(what=what, host=host, pid=pid, started_s=now_s, seen_s=now_s)
        self._path = f"{LEASES}/{pid}-{secrets.token_hex(8)}.json"
        self._is_refused = False
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def add(self, *fingerprints: str) -> None:
        """Name artefacts that are used from now on. When it returns, the lease is stored."""
        with self._lock:
            names = tuple(dict.fromkeys((*self._lease.fingerprints, *fingerprints)))
            self._lease = self._lease.model_copy(update={"fingerprints": names})
            self._put()
        if self._thread.ident is None:
            self._thread.start()

    def end(self) -> None:
        """Take the lease back."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()
        with suppress(ArtifactError):
            self._store.delete(self._path)

    def _renew(self) -> None:
        while not self._over.wait(self._every_s):
            with self._lock:
                self._put()

    def _put(self) -> None:
        self._lease = self._lease.model_copy(update={"seen_s": time.time()})
        try:
            self._store.put(self._path, self._lease.model_dump_json(indent=1).encode())
        except ArtifactError as e:
            if not self._is_refused:
                _log.warning(
                    "%s: no note can be written that %s uses it, so gmp-atl gc on another machine does not "
                    "know of it: %s",
                    *(self._store.uri, self._lease.what, e),
                )
            self._is_refused = True


@contextmanager
def lease(store: Store, what: str) -> Iterator[LeaseKeeper]:
    """A lease for the block. ``what`` is the command, for people."""
    keeper = LeaseKeeper(store, what)
    try:
        yield keeper
    finally:
        keeper.end()


def read_leases(store: Store) -> dict[str, Lease]:
    """All leases below a root by their path, live or not.

    Raises:
        ArtifactError: one is damaged, so it is not known what is used.
    """
    found: dict[str, Lease] = {}
    for entry in store.list(LEASES):
        try:
            found[entry.path] = Lease.model_validate_json(store.read(entry.path))
        except ArtifactError:
            if store.exists(entry.path):
                raise
            # It was taken back meanwhile.
        except ValidationError as e:
            raise ArtifactError(
                f"{store.uri}/{entry.path} is damaged ({e.error_count()} problems), so it is not known what "
                f"is used; delete it if no gmp-atl predict works on this root"
            ) from e
    return found


def live_leases(store: Store) -> list[Lease]:
    """The leases whose processes may work now.

    Raises:
        ArtifactError: a lease is damaged.
    """
    now_s = time.time()
    return [lease for lease in read_leases(store).values() if lease.is_live(now_s)]


def drop_dead_leases(store: Store) -> None:
    """Delete the leases whose processes are gone."""
    now_s = time.time()
    for path, found in read_leases(store).items():
        if not found.is_live(now_s):
            store.delete(path)
