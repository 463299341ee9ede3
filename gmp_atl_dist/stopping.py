"""Ctrl-C, SIGTERM and SIGHUP: one mechanism for a whole command.

The first signal asks the command to stop. A line says so at once, from a thread, because the main thread
may be in a library that does not let go for seconds. The main thread then gets a ``KeyboardInterrupt``,
except within :func:`deferred`, where the code looks at :func:`requested` itself: a training saves a
checkpoint first. A Ctrl-C after that ends the process, and all processes that it started, at once.

Libraries install handlers of their own. ``ray.init`` takes SIGTERM and exits with 15; Ray Train takes
SIGINT and never puts it back. Within :func:`deferred` they cannot. Python tells
:func:`signal.set_wakeup_fd` about a signal whatever its handler is, so the line and the second Ctrl-C do not
depend on handlers at all.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from gmp_atl_dist.errors import StoppedError

if TYPE_CHECKING:
    import psutil

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EXIT_CODES = tuple(128 + signum for signum in SIGNALS)
PASSED_ON = "GMP_ATL_STOP_PASSED_ON"
"""Set in a job whose starter passes on its own signals: Ray makes SIGTERM of each of them."""
_SAME_PRESS_S = 0.1
"""A terminal and a wrapper such as make may both pass on one press of Ctrl-C."""
_LAST_WORDS = b"\x1b[?25h\r\nended at once; finished stages, parts and checkpoints are kept\r\n"
"""Begins by showing the cursor, which progress rows have hidden."""
_END = b"\0"

Handler: TypeAlias = Callable[[int, FrameType | None], object] | int | None

_current: Stopping | None = None
_install = signal.signal
"""The function of Python, also within :func:`deferred`."""


class Stopping:
    """The state of one command: which signal asked it to stop, and what happens meanwhile."""

    def __init__(self, tell: Callable[[str], object], kill: Callable[[], object]) -> None:
        self.signum: signal.Signals | None = None
        """The first signal; None as long as there was none."""
        self.doing = ""
        """What is done before the end, such as "saving a checkpoint"; empty for nothing."""
        self.deferred = 0
        """How many :func:`deferred` blocks the main thread is in."""
        self._tell = tell
        self._kill = kill
        self._asked_s = 0.0
        self._raised = False

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """The handler of the main thread."""
        # The thread may not have seen it yet.
        self.signum = self.signum or signal.Signals(signum)
        self.interrupt()

    def interrupt(self) -> None:
        """Raise ``KeyboardInterrupt`` once, unless that is deferred."""
        if self.signum is not None and not self.deferred and not self._raised:
            self._raised = True
            raise KeyboardInterrupt

    def noticed(self, signum: signal.Signals) -> None:
        """In the thread: a signal has come."""
        now_s = time.monotonic()
        if not self._asked_s:
            self._asked_s = now_s
            self.signum = self.signum or signum
            is_plain = signum == signal.SIGINT or _is_passed_on(signum)
            name = "" if is_plain else f" ({signum.name})"
            doing = f": {self.doing}" if self.doing else ""
            # A terminal that has hung up takes no line.
            with suppress(OSError, ValueError):
                self._tell(f"stopping{name}{doing}; press Ctrl-C again to end at once")
        elif signum == signal.SIGINT and now_s - self._asked_s > _SAME_PRESS_S:
            end_at_once(self._kill)


@contextmanager
def stoppable(
    tell: Callable[[str], object], kill: Callable[[], object] | None = None
) -> Iterator[Stopping]:
    """Own the signals within the block. ``tell`` shows a line; it is called from a thread.

    ``kill`` ends what this process has started, before a second Ctrl-C ends the process itself. Only the
    main thread may handle signals: in another one, the block can be stopped by nobody.
    """
    global _current
    stopping = Stopping(tell, kill or kill_children)
    if threading.current_thread() is not threading.main_thread() or _current is not None:
        yield stopping
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    thread = threading.Thread(target=_watch, args=(reading, stopping), name="signals", daemon=True)
    thread.start()
    before_fd = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    # nohup ignores SIGHUP, and a shell's background job SIGINT: that was asked for.
    ours = [signum for signum in SIGNALS if signal.getsignal(signum) is not signal.SIG_IGN]
    before = {signum: signal.signal(signum, stopping.handle) for signum in ours}
    _current = stopping
    try:
        yield stopping
    finally:
        stopping.deferred += 1  # a signal from here on has nothing left to interrupt
        _current = None
        for signum, handler in before.items():
            signal.signal(signum, handler)
        signal.set_wakeup_fd(before_fd)
        os.write(writing, _END)
        thread.join()
        os.close(reading)
        os.close(writing)


def _watch(reading: int, stopping: Stopping) -> None:
    while True:
        for number in os.read(reading, 64):
            if number == _END[0]:
                return
            if number in SIGNALS:
                stopping.noticed(signal.Signals(number))


def requested() -> signal.Signals | None:
    """The signal that asked this command to stop; None if there was none."""
    return None if _current is None else _current.signum


@contextmanager
def deferred(doing: str = "") -> Iterator[None]:
    """Within the block a signal does not interrupt. Call :func:`check` after it, as soon as that is safe.

    ``doing`` completes the line that is shown at the signal: ``stopping: saving a checkpoint``. Children
    that the block starts do not get SIGHUP, so that a terminal that hangs up does not take them along.
    """
    stopping = _current
    if stopping is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before, stopping.doing = stopping.doing, doing
    stopping.deferred += 1
    # A child inherits what this thread blocks. The signal itself reaches this process in another thread.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    install = signal.signal

    def refuse(signum: int, handler: Handler) -> Handler:
        return signal.getsignal(signum) if signum in SIGNALS else install(signum, handler)

    signal.signal = refuse
    try:
        yield
    finally:
        signal.signal = install
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        stopping.doing = before
        stopping.deferred -= 1


def check() -> None:
    """Raise ``KeyboardInterrupt`` if this command was asked to stop, unless that is deferred.

    For places between two pieces of work: the interrupt itself may have been deferred, or lost in a
    library's finaliser, from which no exception comes out. What the main thread defers, other threads do not:
    no interrupt reaches them, so this is how their work ends.
    """
    if _current is None or _current.signum is None:
        return
    is_main = threading.current_thread() is threading.main_thread()
    if not (is_main and _current.deferred):
        raise KeyboardInterrupt


def take_signals_again() -> None:
    """Own the signals again after ``ray.init``, which goes around Python.

    Ray installs a handler of Abseil's in C. At SIGTERM that one prints a stack and sets an alarm, which
    aborts the process 3 s later (exit code 134), however far the stop has come.
    """
    if _current is None or threading.current_thread() is not threading.main_thread():
        return
    for signum in SIGNALS:
        _install(signum, _current.handle)
    if _current.signum is not None:
        signal.alarm(0)


def say_what_is_done(doing: str) -> None:
    """Replace ``doing`` of the :func:`deferred` block around."""
    if _current is not None:
        _current.doing = doing


def stopped(signum: signal.Signals, detail: str) -> StoppedError:
    """The error of a stop; ``detail`` says what is kept."""
    return StoppedError(f"stopped by {called(signum)}: {detail}", 128 + signum)


def called(signum: signal.Signals) -> str:
    """A signal as people call it."""
    if _is_passed_on(signum):
        return "the process that started the job"
    return "Ctrl-C" if signum == signal.SIGINT else signum.name


def _is_passed_on(signum: signal.Signals) -> bool:
    return signum == signal.SIGTERM and bool(os.environ.get(PASSED_ON))


def end_at_once(kill: Callable[[], object]) -> None:
    """Kill what this process has started, and end it with the exit code of Ctrl-C."""
    # Whatever goes wrong there, the process ends.
    with suppress(Exception):
        kill()
    with suppress(OSError):
        # Not the standard streams: during a run they point to its log file.
        terminal = os.open("/dev/tty", os.O_WRONLY | os.O_NOCTTY)
        os.write(terminal, _LAST_WORDS)
    os._exit(128 + signal.SIGINT)


def leave(code: int) -> NoReturn:
    """End this process now, without what libraries do at the end of Python."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that has hung up takes nothing any more.
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def kill_children() -> None:
    """SIGKILL every descendant of this process, such as a Ray of its own."""
    # Twice: a process may have started another one meanwhile.
    for _ in range(2):
        kill(descendants())


def descendants() -> list[psutil.Process]:
    """All processes that this one and its children have started, as long as their parents live."""
    import psutil

    return psutil.Process().children(recursive=True)


def kill(processes: Sequence[psutil.Process]) -> None:
    """SIGKILL those that still live."""
    import psutil

    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
