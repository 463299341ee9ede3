"""Commands on a real terminal: a pty that is the controlling terminal of the command's session.

Test modules import it before pytest could rewrite its assertions, and it has none: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import psutil

from support.screen import Screen

T = TypeVar("T")

REPOSITORY = Path(__file__).resolve().parents[2]
_CTRL_C = b"\x03"
_POLL_S = 0.02


class Terminal:
    """A command under way, and what its terminal has been sent."""

    def __init__(self, command: Sequence[str], columns: int, env: dict[str, str]) -> None:
        self.columns = columns
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        clean = {
            name: value
            for name, value in os.environ.items()
            if name not in ("RAY_ADDRESS", "COLUMNS", "LINES")
        }
        self.process = subprocess.Popen(
            [*_ON_THIS_TERMINAL, *command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=REPOSITORY,
            env=clean | {"TERM": "xterm", "PYTHONPATH": str(REPOSITORY)} | env,
            start_new_session=True,
        )
        os.close(theirs)
        self.started_s = time.time()
        self._bytes = b""
        self._times: list[tuple[int, float]] = []
        self._hung_up = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while not self._hung_up.is_set():
            try:
                # A read under way would keep the descriptor from being closed.
                if not select.select([self._ours], [], [], _POLL_S)[0]:
                    continue
                chunk = os.read(self._ours, 65536)
            except (OSError, ValueError):
                return  # Linux: the other side is closed
            if not chunk:
                return
            self._bytes += chunk
            self._times.append((len(self._bytes), time.monotonic()))

    @property
    def text(self) -> str:
        """All that was sent so far, control sequences included."""
        return self._bytes.decode(errors="replace")

    def screen(self) -> Screen:
        """What a person sees."""
        screen = Screen(self.columns)
        screen.feed(self.text)
        return screen

    def shown_at(self, pattern: str) -> float | None:
        """When (by ``time.monotonic``) ``pattern`` was first sent; None if it was not."""
        found = re.search(pattern.encode(), self._bytes)
        if found is None:
            return None
        return next((at for length, at in self._times if length >= found.end()), None)

    def press_ctrl_c(self) -> float:
        """As on the keyboard: the kernel sends SIGINT to all processes in the foreground."""
        os.write(self._ours, _CTRL_C)
        return time.monotonic()

    def send(self, signum: signal.Signals) -> float:
        """Send a signal to the command alone."""
        self.process.send_signal(signum)
        return time.monotonic()

    def hang_up(self) -> float:
        """Close the terminal's window: the kernel sends SIGHUP to all processes in the foreground."""
        self._hung_up.set()
        self._reader.join()
        os.close(self._ours)
        return time.monotonic()

    def until(self, condition: Callable[[], T | None], what: str, limit_s: float) -> T:
        """The first value of ``condition`` that is neither None nor False, while the command runs."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            value = condition()
            if value:
                return value
            if self.process.poll() is not None:
                raise RuntimeError(
                    f"ended with {self.process.returncode} before {what}\n{self.text}"
                )
            time.sleep(_POLL_S)
        raise TimeoutError(f"no sign of {what} after {limit_s:g} s\n{self.text}")

    def wait(self, limit_s: float) -> int:
        """The exit code, as a shell has it. All output has been read then."""
        try:
            code = self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"not done after {limit_s:g} s\n{self.text}") from None
        self._reader.join(5)
        return code if code >= 0 else 128 - code

    def family(self) -> list[str]:
        """The command lines of all processes of its session that still live.

        A process that is being torn down has no command line any more.
        """
        found: list[str] = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                ours = os.getsid(process.pid) == self.process.pid
                line = " ".join(process.cmdline()).strip()
                if ours and line and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(line)
        return found

    def end(self) -> None:
        """The last resort: SIGKILL whatever is left of its session."""
        self.process.kill()
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if os.getsid(process.pid) == self.process.pid:
                    process.kill()
        self.process.wait()
        if not self._hung_up.is_set():
            self.hang_up()


@contextmanager
def on_a_terminal(
    *command: str, columns: int = 100, env: dict[str, str] | None = None
) -> Iterator[Terminal]:
    """``python COMMAND`` on a terminal of its own. Afterwards nothing of it is left."""
    terminal = Terminal([sys.executable, *command], columns, env or {})
    try:
        yield terminal
    finally:
        terminal.end()


_TAKE = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
# Ctrl-C as in a foreground job: a shell's background jobs, and their children, ignore it.
_TAKE += "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); "
_TAKE += "signal.signal(signal.SIGHUP, signal.SIG_DFL); "
_TAKE += "os.execv(sys.argv[1], sys.argv[1:])"
_ON_THIS_TERMINAL = (sys.executable, "-c", _TAKE)
