"""Ctrl-C, SIGTERM and SIGHUP of a command that writes results as they come."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from gmp_atl_dist.errors import GmpAtlError

_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
"""As of a process that the signal ends."""


class CommandStopped(GmpAtlError):
    """The command was asked to stop; says what is finished."""


class StopRequest(BaseException):
    """A signal has arrived. No code that catches exceptions of its own catches it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = signal.Signals(number)

    def error(self, finished: str) -> CommandStopped:
        """What the command ends with: ``finished`` says what a person has now."""
        word = "interrupted" if self.number == signal.SIGINT else f"stopped by {self.number.name}"
        error = CommandStopped(f"{word}: {finished}")
        error.exit_code = _CODES[self.number]
        return error


class Stops:
    """Within the block the first signal raises :class:`StopRequest` in the main thread.

    A second one ends the process as the signal does by default. In another thread than the main one, signals
    are left as they are.
    """

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._holding = False
        self._waiting: int | None = None

    def __enter__(self) -> Stops:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._stop) for number in _CODES}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """A signal within this block raises at its end, so that a row is written completely."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._waiting is not None:
            raise StopRequest(self._waiting)

    def _stop(self, number: int, _: FrameType | None) -> None:
        for known in _CODES:
            signal.signal(known, signal.SIG_DFL)
        if self._holding:
            self._waiting = number
        else:
            raise StopRequest(number)
