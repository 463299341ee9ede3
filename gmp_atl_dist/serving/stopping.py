"""Signals of a server: the first one asks it to end, the second one ends the process at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """Whether SIGINT, SIGTERM or SIGHUP came.

    The handler raises nothing. An exception in the middle of Ray's start would be lost or leave processes
    behind.

    Args:
        say: prints a line; it is called at once.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._event = threading.Event()
        self._signal: int = signal.SIGTERM

    def install(self) -> None:
        """Own the signals. Call it again after Ray's start.

        Ray installs a handler in C, which aborts the process 3 s after SIGTERM.
        """
        for number in _SIGNALS:
            signal.signal(number, self._receive)
        if self.asked:
            signal.alarm(0)

    @property
    def asked(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait for a signal for at most ``seconds``; whether one came."""
        return self._event.wait(seconds)

    @property
    def exit_code(self) -> int:
        return 128 + self._signal

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self._event.is_set():
            os._exit(128 + number)
        self._signal = number
        self._event.set()
        name = signal.Signals(number).name
        self._say(f"{name}: stopping; received requests are answered; once more ends at once")
