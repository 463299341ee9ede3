"""Calls that may hang, such as reading a dead network mount, with a time limit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class BackgroundCall(Generic[T]):
    """A call that runs in a daemon thread, so that a hanging call does not keep the process alive."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._result: list[T] = []
        self._error: list[Exception] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result.append(self._call())
        except Exception as e:
            self._error.append(e)

    def result(self, timeout_s: float) -> T:
        """What the call returns.

        Raises:
            TimeoutError: the call has not returned within ``timeout_s`` seconds.
            Exception: what the call raised.
        """
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise TimeoutError(f"no answer within {timeout_s:g} s")
        if self._error:
            raise self._error[0]
        return self._result[0]
