"""Stops of a command that writes results as they come, on top of :mod:`gmp_atl_dist.stopping`."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from gmp_atl_dist import stopping
from gmp_atl_dist.errors import StoppedError
from gmp_atl_dist.redaction import say_error


@contextmanager
def stoppable_results() -> Iterator[None]:
    """Within the block, Ctrl-C, SIGTERM and SIGHUP raise ``KeyboardInterrupt`` once.

    The :class:`StoppedError` that the block makes of it (:func:`stopped_with`) is printed.
    """
    with stopping.stoppable(_say):
        try:
            yield
        except StoppedError as e:
            _say(e.message)
            raise


@contextmanager
def whole_row() -> Iterator[None]:
    """A signal within this block raises at its end, so that a row is written completely."""
    with stopping.deferred():
        yield
    stopping.check()


def stopped_with(finished: str) -> StoppedError:
    """The error that a stop ends with; ``finished`` says what a person has now."""
    return stopping.stopped(stopping.requested() or signal.SIGINT, finished)


def _say(text: str) -> None:
    say_error(text)
