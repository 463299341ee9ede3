"""Work that may hang, such as a look into a dead network mount, given up after a while."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Attempts(Generic[T]):
    """A call that runs in a thread, which dies with the process wherever it hangs."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._result: list[T] = []
        self._error: list[Exception] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result.append(self._work())
        except Exception as e:
            self._error.append(e)

    def result(self, timeout_s: float) -> T:
        """What the call returns.

        Raises:
            TimeoutError: it has not returned after so long.
            Exception: what the call raised.
        """
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise TimeoutError(f"no answer within {timeout_s:g} s")
        if self._error:
            raise self._error[0]
        return self._result[0]
