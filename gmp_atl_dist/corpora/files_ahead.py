"""The next files of a corpus in object storage, read in threads while those before them are decoded.

A request takes some 10 ms whatever its size, as long as it takes to decode several clips. So several are
under way at the same time. Recordings may last hours, so the size of a file is asked for before it is read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from threading import Condition
from types import TracebackType

from gmp_atl_dist.store.filesystem import Store

_THREADS = 8
_AHEAD_BYTES = 64 << 20


class FilesAhead:
    """Whole files in a fixed order. Memory holds at most ``ahead_bytes`` beyond the file that is asked for.

    Args:
        store: the corpus.
        paths: the files, in the order in which they will be asked for. Of neighbours that are equal, one is
            read.
        ahead_bytes: what may be read ahead; a larger file is read when it is asked for.
    """

    def __init__(self, store: Store, paths: Iterable[str], ahead_bytes: int = _AHEAD_BYTES) -> None:
        self._store = store
        self._ahead_bytes = ahead_bytes
        self._changed = Condition()
        self._held_bytes = 0
        self._asked = -1
        self._closed = False
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="read-ahead")
        self._waiting: deque[tuple[str, Future[tuple[bytes, int]]]] = deque(
            (path, self._pool.submit(self._load, number, path))
            for number, (path, _) in enumerate(groupby(paths))
        )

    def __enter__(self) -> FilesAhead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, _: TracebackType | None
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._pool.shutdown(cancel_futures=True)

    def read(self, path: str) -> bytes:
        """The bytes of the next file, or of any other one without reading ahead.

        Raises:
            UnreadableError: the file does not exist.
            ArtifactError: the store cannot be read.
        """
        if not self._waiting or self._waiting[0][0] != path:
            return self._store.read(path)
        _, loading = self._waiting.popleft()
        with self._changed:
            self._asked += 1
            self._changed.notify_all()
        data, counted = loading.result()
        with self._changed:
            self._held_bytes -= counted
            self._changed.notify_all()
        return data

    def _load(self, number: int, path: str) -> tuple[bytes, int]:
        """The file, and the bytes that it counts as read ahead."""
        counted = 0

        def admit(size: int) -> None:
            nonlocal counted
            with self._changed:
                self._changed.wait_for(lambda: self._may_read(number, size))
                if number > self._asked:
                    counted = size
                    self._held_bytes += size

        return self._store.read(path, admit), counted

    def _may_read(self, number: int, size: int) -> bool:
        fits = self._held_bytes + size <= self._ahead_bytes
        return self._closed or number <= self._asked or fits
