"""A cache under a budget: what stays, what is loaded again, and one entry that is too large."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmp_atl_dist.store.cache import LoadingCache


def test_the_entries_used_last_stay() -> None:
    loaded: list[str] = []

    def load(key: str) -> bytes:
        loaded.append(key)
        return key.encode() * 4

    cache = LoadingCache(load, 8, len)
    for key in ("a", "b", "a", "c", "a", "b"):
        assert cache[key] == key.encode() * 4
    assert loaded == ["a", "b", "c", "b"]
    assert len(cache) == 2


@pytest.mark.parametrize("budget", [0, 1, 3])
def test_one_entry_stays_although_it_is_larger_than_the_budget(budget: int) -> None:
    loaded: list[int] = []

    def load(key: int) -> bytes:
        loaded.append(key)
        return bytes(100)

    cache = LoadingCache(load, budget, len)
    for key in (1, 1, 2, 2, 1):
        cache[key]
    assert loaded == [1, 2, 1]
    assert len(cache) == 1


def test_without_sizes_entries_are_counted() -> None:
    cache = LoadingCache(str, 2)
    assert [cache[i] for i in range(5)] == ["0", "1", "2", "3", "4"]
    assert len(cache) == 2


@given(
    keys=st.lists(st.integers(0, 9), max_size=60),
    sizes=st.lists(st.integers(1, 20), min_size=10, max_size=10),
    budget=st.integers(1, 40),
)
def test_it_holds_what_fits(keys: list[int], sizes: list[int], budget: int) -> None:
    """Against the rule written out: drop the entry used longest ago while the total is too large."""
    cache = LoadingCache(lambda key: bytes(sizes[key]), budget, len)
    held: list[int] = []
    for key in keys:
        assert len(cache[key]) == sizes[key]
        held = [*(k for k in held if k != key), key]
        while len(held) > 1 and sum(sizes[k] for k in held) > budget:
            held.pop(0)
        assert len(cache) == len(held)


def test_an_error_of_the_loader_leaves_no_entry() -> None:
    def load(key: str) -> str:
        raise KeyError(key)

    cache = LoadingCache(load, 2)
    with pytest.raises(KeyError, match="gone"):
        cache["gone"]
    assert len(cache) == 0


def test_threads_share_it() -> None:
    cache = LoadingCache(lambda key: bytes([key]) * 3, 9, len)
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda i: cache[i % 7], range(4000)))
    assert read == [bytes([i % 7]) * 3 for i in range(4000)]
    assert len(cache) <= 3
