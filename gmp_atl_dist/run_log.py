"""One file for everything that libraries print during a run, so that a person sees our lines alone.

Ray, DeepSpeed, PyTorch and transformers print from Python and from C++ to the standard output and the
standard error of the driver, and Ray copies there what its workers print. During a run both point to the
log file; our lines go to the streams that the process had before. Warnings of this package are shown from
wherever they come: the driver's own through ``logging``, those of workers by a mark in Ray's copy.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from gmp_atl_dist.redaction import without_secrets

_PACKAGE = __name__.partition(".")[0]
FOLDER = "run_logs"
"""Below a root. ``logs`` holds TensorBoard's events."""
_OUT_FD, _ERR_FD = 1, 2
_MARK = f"{_PACKAGE} warning: "
# Ray appends the remark where several workers print the same.
_MARKED = re.compile(rf"{_MARK}(.*?)(?: \[repeated \d+x across cluster\].*)?$")
_COLOUR_CODE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


_entered: list[RunLog] = []


def current_log() -> RunLog | None:
    """The log file of this process now; None outside a run."""
    return _entered[-1] if _entered else None


class RunLog:
    """The log file of one run. As a context manager, it takes all output but ours."""

    out: TextIO
    """The standard output that the process had before; for our lines."""
    err: TextIO
    """The standard error that the process had before."""

    def __init__(self, root: str) -> None:
        """``root`` is the folder or URI of the artefacts.

        The file lies in ``run_logs/`` below a local root; otherwise, or where that folder cannot be
        written, in ``gmp-atl-logs/`` of the system's temporary folder.
        """
        self._below_root = _local_folder(root)
        self._created: list[Path] = []
        self._show: Callable[[str], object] | None = None

    def show_warnings(self, show: Callable[[str], object]) -> None:
        """Hand each warning of this package to ``show``. It may be called from another thread."""
        self._show = show

    def take_over_dead_terminals(self) -> None:
        """Send our own lines to the log file, where the terminal that they went to has hung up."""
        for stream in self._terminals:
            with suppress(OSError, ValueError):
                if not stream.isatty():
                    os.dup2(self._fd, stream.fileno())

    @property
    def is_empty(self) -> bool:
        """Whether no library has printed anything so far."""
        for stream in (sys.stdout, sys.stderr):
            with suppress(ValueError, OSError):
                stream.flush()
        return not self.path.exists() or self.path.stat().st_size == 0

    def __enter__(self) -> RunLog:
        self.path, self._fd = self._open()
        self._streams = (sys.stdout, sys.stderr)
        self.out = _own_stream(sys.stdout, _OUT_FD)
        self.err = _own_stream(sys.stderr, _ERR_FD)
        self._terminals = [stream for stream in (self.out, self.err) if stream.isatty()]
        self._saved_fds = (os.dup(_OUT_FD), os.dup(_ERR_FD))
        os.dup2(self._fd, _OUT_FD)
        os.dup2(self._fd, _ERR_FD)
        self._sieves = (_Sieve(_OUT_FD, self._look_at), _Sieve(_ERR_FD, self._look_at))
        sys.stdout, sys.stderr = self._sieves
        self._handler = _ShowHandler(self._warn)
        self._logger = logging.getLogger(_PACKAGE)
        self._propagated = self._logger.propagate
        self._logger.addHandler(self._handler)
        self._logger.propagate = False
        _entered.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _entered.remove(self)
        self._logger.removeHandler(self._handler)
        self._logger.propagate = self._propagated
        for sieve in self._sieves:
            sieve.end()
        sys.stdout, sys.stderr = self._streams
        for saved, fd in zip(self._saved_fds, (_OUT_FD, _ERR_FD), strict=True):
            os.dup2(saved, fd)
            os.close(saved)
        os.close(self._fd)
        for stream, before in zip((self.out, self.err), self._streams, strict=True):
            stream.flush()
            if stream is not before:
                stream.close()
        if self.is_empty:
            self.path.unlink(missing_ok=True)
            for folder in reversed(self._created):
                # Somebody may have put something there meanwhile.
                with suppress(OSError):
                    folder.rmdir()

    def _open(self) -> tuple[Path, int]:
        """The path and an open descriptor of a new file."""
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}.log"
        elsewhere = Path(tempfile.gettempdir()) / "gmp-atl-logs"
        for folder in filter(None, (self._below_root, elsewhere)):
            with suppress(OSError):
                self._make(folder)
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
                return folder / name, os.open(folder / name, flags, 0o600)
        fd, path = tempfile.mkstemp(prefix="gmp-atl-", suffix=".log")
        return Path(path), fd

    def _make(self, folder: Path) -> None:
        missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        self._created += reversed(missing)

    def _look_at(self, line: str) -> None:
        if marked := _MARKED.search(line):
            self._warn(marked[1])

    def _warn(self, text: str) -> None:
        if self._show is not None:
            self._show(text)


def mark_warnings() -> None:
    """In a worker: print warnings of this package so that the driver's :class:`RunLog` knows them."""
    logger = logging.getLogger(_PACKAGE)
    if any(isinstance(handler, _MarkHandler) for handler in logger.handlers):
        return
    logger.addHandler(_MarkHandler())
    # Ray Train puts a handler on the root logger, which would print each of them again.
    logger.propagate = False


class _ShowHandler(logging.Handler):
    def __init__(self, show: Callable[[str], object]) -> None:
        super().__init__(logging.WARNING)
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        self._show(record.getMessage())


class _MarkHandler(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        # One line, because Ray copies line by line. The stream of now: Ray replaces it at its start.
        text = without_secrets(" ".join(record.getMessage().split("\n")))
        print(f"{_MARK}{text}", file=sys.stderr, flush=True)


class _Sieve(io.TextIOBase):
    """A text stream that writes whole lines without colour codes to ``fd`` and shows each to ``look``.

    Handlers of ``logging`` may hold it longer than the run takes; what is written then is dropped.
    """

    def __init__(self, fd: int, look: Callable[[str], None]) -> None:
        super().__init__()
        self._fd = fd
        self._look = look
        self._rest = ""
        self._ended = False
        self._lock = threading.RLock()
        self.buffer = open(fd, "wb", buffering=0, closefd=False)  # noqa: SIM115

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return "utf-8"

    @property
    def errors(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return "replace"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return False

    def write(self, text: str, /) -> int:
        with self._lock:
            if not self._ended:
                # A progress bar returns to the start of its line instead of beginning a new one.
                lines = (self._rest + text.replace("\r", "\n")).split("\n")
                self._rest = lines.pop()
                for line in lines:
                    self._put(line)
        return len(text)

    def end(self) -> None:
        """Write the last line, which nothing has ended, and take no more."""
        with self._lock:
            if self._rest:
                self._put(self._rest)
            self._rest, self._ended = "", True

    def _put(self, line: str) -> None:
        line = without_secrets(_COLOUR_CODE.sub("", line))
        if line.strip():
            os.write(self._fd, f"{line}\n".encode(errors="replace"))
            self._look(line)


def _local_folder(root: str) -> Path | None:
    if root.startswith("file://"):
        return Path(root.removeprefix("file://")) / FOLDER
    return None if "://" in root else Path(root).expanduser() / FOLDER


def _own_stream(stream: TextIO, fd: int) -> TextIO:
    """``stream``, or where it writes to ``fd`` one that writes to what ``fd`` is now."""
    try:
        shared = stream.fileno() == fd
    except (OSError, ValueError, AttributeError):
        shared = False  # a test's or a notebook's
    if not shared:
        return stream
    stream.flush()
    return open(os.dup(fd), "w", encoding=stream.encoding, errors=stream.errors, buffering=1)
