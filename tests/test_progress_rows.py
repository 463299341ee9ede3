"""Rows of the progress display at the widths of real terminals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmp_atl_dist.progress_rows import (
    about,
    crop,
    duration,
    first_that_fits,
    run_wordings,
    stage_row,
)

MEASURES = ("accuracy 61 % (chance 25 %)", "loss 0.9123", "412 h/h", "data_wait_share 0.01")


def row(width: int) -> str:
    return stage_row(
        width, "finetune fold2", 120, 4000, ends_in_s=7800, note="updates", measures=MEASURES
    )


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_bar_count_and_end_come_first_at_every_width(width: int) -> None:
    text = row(width)
    assert len(text) <= width
    assert "───" in text
    assert " 120/4000 " in text
    assert ("2 h 10 min left" if width >= 80 else "2 h 10 min") in text
    assert text.index("120/4000") < text.index("2 h 10 min")
    assert ("accuracy 61 % (chance 25 %)" in text) == (width >= 80)
    assert ("accuracy 61 % (chance 25 %), loss 0.9123, 412 h/h" in text) == (width >= 120)
    assert "data_wait_share" not in text


@given(st.integers(1, 250), st.text(max_size=60), st.integers(0, 10**9), st.integers(1, 10**9))
def test_nothing_is_wider_than_the_terminal(width: int, title: str, done: int, total: int) -> None:
    text = stage_row(width, title, done, total, ends_in_s=1e6, note="parts", measures=MEASURES)
    assert len(text) <= width


def test_a_bar_fills() -> None:
    assert stage_row(80, "x", 0, 4).count("━") == 0
    assert stage_row(80, "x", 2, 4).count("━") == 4
    assert stage_row(80, "x", 4, 4).count("─") == 0
    assert "0/?" in stage_row(80, "x", 0, None)


@pytest.mark.parametrize(
    ("seconds", "exact", "rough"),
    [
        (0.4, "0 s", "about 1 min"),
        (89, "89 s", "about 1 min"),
        (125, "2 min", "about 2 min"),
        (3420, "57 min", "about 55 min"),
        (7500, "2 h 05 min", "about 2 h"),
        (9000, "2 h 30 min", "about 2.5 h"),
        (100_000, "1 d 3 h", "about 28 h"),
        (200_000, "2 d 7 h", "about 2.5 d"),
    ],
)
def test_durations_in_words(seconds: float, exact: str, rough: str) -> None:
    assert duration(seconds) == exact
    assert about(seconds) == rough


def test_the_longest_wording_that_fits() -> None:
    assert first_that_fits(5, ("123456", "12345", "1")) == "12345"
    assert first_that_fits(3, ("123456", "12345")) == "12…"
    assert crop("abc", 3) == "abc"


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (200, "stage 6 of 11, fold 2 of 5, whole run ends in about 2 h"),
        (80, "stage 6 of 11, fold 2 of 5, whole run ends in about 2 h"),
        (45, "stage 6 of 11, fold 2 of 5, about 2 h left"),
        (40, "stage 6/11, fold 2/5, about 2 h left"),
        (35, "stage 6/11, fold 2/5, 2 h left"),
        (20, "stage 6/11, fold 2/…"),
    ],
)
def test_the_row_of_the_whole_run_fits(width: int, expected: str) -> None:
    wordings = run_wordings((6, 11), (2, 5), 7200.0, at_least=False)
    assert first_that_fits(width, wordings) == expected


def test_what_is_not_known_is_not_said() -> None:
    assert run_wordings((1, 10), None, None, at_least=True) == (
        "stage 1 of 10, no estimate yet for the whole run",
        "stage 1 of 10, end not known yet",
        "stage 1/10, end not known yet",
        "stage 1/10, end ?",
    )
    assert run_wordings(None, None, 600.0, at_least=True)[0] == "whole run ends in more than 10 min"
