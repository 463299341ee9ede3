"""Text logs of processes, put into the store while they grow: pods and their disks go with the run.

An object cannot be appended to, so each put is of the whole log, or of its end. A store that refuses a log is
told of once, and nothing waits for it but :meth:`LogKeeper.close`.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from gmp_atl_dist.redaction import without_secrets
from gmp_atl_dist.store.filesystem import Store

_log = logging.getLogger(__name__)

EVERY_S = 60.0
MOST_BYTES = 4 << 20
"""Of one file. The end is kept: it says why a process died."""
PUT_S = 10.0
"""Limit of one try of a put. A log is not worth a long wait."""


class LogKeeper:
    """A thread that keeps the object ``path`` equal to the text of some files.

    Args:
        store: where the object is put. It should be impatient: ``Store.open(uri, PUT_S)``.
        path: of the object, below the root.
        files: gives the files by what they are called; asked each time. One that is missing or empty is left
            out, and as long as there is no text, there is no object.
        most_bytes: of each file; of a longer one the end is kept.
    """

    def __init__(
        self,
        store: Store,
        path: str,
        files: Callable[[], Sequence[tuple[str, Path]]],
        *,
        every_s: float = EVERY_S,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self.path = path
        self._store = store
        self._files = files
        self._every_s = every_s
        self._most_bytes = most_bytes
        self._kept: list[tuple[str, int]] = []
        self._looking = threading.Lock()
        self._warned = False
        self._wake, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="kept-log", daemon=True)

    def start(self) -> None:
        """Look every ``every_s`` seconds from now on."""
        self._thread.start()

    def soon(self) -> None:
        """Look now, in the background."""
        self._wake.set()

    def look(self) -> None:
        """Put the log, if it has grown since the last time. Raises nothing."""
        with self._looking:
            sizes = [(str(path), _size(path)) for _, path in self._files()]
            if sizes == self._kept or not any(size for _, size in sizes):
                return
            try:
                self._store.put(self.path, self._text().encode())
            except Exception as e:  # a run must not fail because of its logs
                if not self._warned:
                    _log.warning("the log %s is not kept: %s", self.path, e)
                self._warned = True
                return
            self._kept, self._warned = sizes, False

    def close(self) -> None:
        """Look once more, and end the thread."""
        self._over.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(2 * PUT_S)
        if not self._thread.is_alive():  # else it waits for a store that does not answer
            self.look()

    def _watch(self) -> None:
        while not self._over.is_set():
            self._wake.wait(self._every_s)
            self._wake.clear()
            if not self._over.is_set():
                self.look()

    def _text(self) -> str:
        texts = [(name, end_of(path, self._most_bytes)) for name, path in self._files()]
        shown = [(name, text) for name, text in texts if text]
        if len(texts) == 1:
            return without_secrets(texts[0][1])
        return without_secrets("".join(f"--- {name} ---\n{text}" for name, text in shown))


def end_of(path: Path, most_bytes: int) -> str:
    """The last ``most_bytes`` of a text file in whole lines; empty if it is not there.

    A first line says how much was left out.
    """
    try:
        with path.open("rb") as file:
            left_out = max(0, file.seek(0, os.SEEK_END) - most_bytes)
            file.seek(left_out)
            data = file.read(most_bytes)
    except OSError:
        return ""
    if left_out:
        cut, _, data = data.partition(b"\n")
        left_out += len(cut) + 1
    text = data.decode(errors="replace")
    if text and not text.endswith("\n"):
        text += "\n"
    return f"[{left_out} bytes before this are left out]\n{text}" if left_out else text


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0
