"""The cut of a sequence into pieces, against the formula; and batches under a limit."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmp_atl_dist.partition import greedy_batches, piece_numbers, piece_starts

SIZES = st.lists(st.one_of(st.just(0), st.integers(0, 9), st.integers(0, 10**9)), max_size=40)


def by_the_formula(sizes: list[int], num_pieces: int) -> list[int]:
    """floor(midpoint * n / total) of each item, in exact arithmetic."""
    total, before = sum(sizes), 0
    numbers: list[int] = []
    for size in sizes:
        midpoint = before + Fraction(size, 2)
        # The midpoint of an item of size 0 at the end lies on the last edge.
        numbers.append(min(floor(midpoint * num_pieces / total), num_pieces - 1))
        before += size
    return numbers


@given(sizes=SIZES.filter(sum), num_pieces=st.integers(1, 300))
def test_an_item_belongs_to_the_piece_of_its_midpoint(sizes: list[int], num_pieces: int) -> None:
    numbers = piece_numbers(np.array(sizes, np.int64), num_pieces)
    assert numbers.tolist() == by_the_formula(sizes, num_pieces)


@given(sizes=SIZES, num_pieces=st.integers(1, 60))
def test_pieces_are_consecutive_and_hold_every_item_once(sizes: list[int], num_pieces: int) -> None:
    array = np.array(sizes, np.int64)
    starts, numbers = piece_starts(array, num_pieces), piece_numbers(array, num_pieces)
    assert len(starts) == num_pieces + 1
    assert (starts[0], starts[-1]) == (0, len(sizes))
    assert (np.diff(starts) >= 0).all()
    assert len(numbers) == len(sizes)
    assert (np.diff(numbers) >= 0).all()
    for number in range(num_pieces):
        assert (numbers[starts[number] : starts[number + 1]] == number).all()


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=60), num_pieces=st.integers(1, 20))
def test_a_piece_differs_from_its_share_by_one_item_at_most(
    sizes: list[int], num_pieces: int
) -> None:
    """Half an item at each end."""
    numbers = piece_numbers(np.array(sizes), num_pieces)
    totals = np.bincount(numbers, weights=sizes, minlength=num_pieces)
    assert np.abs(totals - sum(sizes) / num_pieces).max() <= max(sizes)


@pytest.mark.parametrize(
    ("sizes", "num_pieces", "starts"),
    [
        ([], 3, [0, 0, 0, 0]),
        ([5], 1, [0, 1]),
        # An item larger than a piece leaves pieces empty.
        ([100], 4, [0, 0, 0, 1, 1]),
        ([1, 100, 1], 3, [0, 1, 2, 3]),
        ([1, 98, 1], 10, [0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 3]),
        # An item of size 0 on an edge belongs to the piece that begins there; at the end, to the last one.
        ([0, 0, 4, 0, 4, 0], 2, [0, 3, 6]),
        ([0, 0, 0], 2, [0, 0, 3]),
        ([1, 1, 1, 1], 2, [0, 2, 4]),
        # A midpoint on an edge belongs to the piece that begins there.
        ([1, 2, 1], 2, [0, 1, 3]),
    ],
)
def test_the_first_item_of_each_piece(sizes: list[int], num_pieces: int, starts: list[int]) -> None:
    assert piece_starts(np.array(sizes, np.int64), num_pieces).tolist() == starts


@given(
    sizes=st.lists(st.integers(0, 30), max_size=60), limit=st.integers(0, 60), padded=st.booleans()
)
def test_batches_are_as_large_as_the_limit_allows(
    sizes: list[int], limit: int, padded: bool
) -> None:
    def total(batch: list[tuple[int, int]]) -> int:
        own = [size for _, size in batch]
        return max(own) * len(own) if padded else sum(own)

    items = list(enumerate(sizes))
    batches = list(greedy_batches(items, limit, lambda item: item[1], padded=padded))
    assert [item for batch in batches for item in batch] == items
    for batch in batches:
        assert total(batch) <= limit or len(batch) == 1
    for batch, following in pairwise(batches):
        assert total([*batch, following[0]]) > limit
