"""A cache in memory that loads what is missing, under a budget of bytes or of entries."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

from cachetools import LRUCache

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


class LoadingCache(Generic[KeyT, ValueT]):
    """The entries used last, up to a budget. Several threads may use it.

    Loading does not hold the lock, so two threads may load the same entry at the same time.

    Args:
        load: makes the entry of a key that is not in memory.
        budget: the largest total size. One entry stays, even if it is larger than that.
        size: the size of an entry; without it each entry counts 1.
    """

    def __init__(
        self,
        load: Callable[[KeyT], ValueT],
        budget: int,
        size: Callable[[ValueT], int] | None = None,
    ) -> None:
        budget = max(1, budget)

        def capped(value: ValueT) -> int:
            # LRUCache refuses an entry larger than its budget, and sizes of 0 would never be evicted.
            return 1 if size is None else min(max(1, size(value)), budget)

        self._load = load
        self._entries: LRUCache[KeyT, ValueT] = LRUCache(budget, capped)
        self._lock = Lock()

    def __getitem__(self, key: KeyT) -> ValueT:
        with self._lock:
            if key in self._entries:
                return self._entries[key]
        value = self._load(key)
        with self._lock:
            self._entries[key] = value
        return value

    def __len__(self) -> int:
        return len(self._entries)
