"""The fuzzer itself: it repeats its inputs, finds what is planted, and the parsers hold for a moment."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from gmp_atl_dist.errors import CorpusError

sys.path.insert(0, str(Path(__file__).resolve().parent))

import fuzz  # pyright: ignore[reportMissingImports]
import targets  # pyright: ignore[reportMissingImports]

LIMITS = fuzz.Limits(seconds=1, gib=8.0)
TIME_MINUTES = 2.0


def refuses(data: bytes) -> None:
    raise CorpusError("refused")


def says_nothing(data: bytes) -> None:
    raise CorpusError(" ")


def breaks(data: bytes) -> None:
    if b"x" not in data:
        raise IndexError("list index out of range")


def hangs(data: bytes) -> None:
    time.sleep(30)


def dies(data: bytes) -> None:
    os._exit(7)


def target_of(parse: targets.Parse) -> targets.Target:
    return targets.Target("planted", (b"xxxxxxxx",), targets.Plain(parse))


def test_an_input_is_the_same_for_the_same_seed() -> None:
    (votes, *_) = targets.TARGETS
    made = [fuzz.input_of(votes, 3, number) for number in range(50)]
    assert made == [fuzz.input_of(votes, 3, number) for number in range(50)]
    assert len(set(made)) > 40
    assert made != [fuzz.input_of(votes, 4, number) for number in range(50)]


def test_a_refusal_is_fine_and_a_refusal_without_words_is_not() -> None:
    assert fuzz.try_one(refuses, b"") == ""
    assert fuzz.try_one(says_nothing, b"") == "an error without a message"
    assert "IndexError" in fuzz.try_one(breaks, b"")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parse", "said"), [(breaks, "IndexError"), (hangs, "too slow"), (dies, "ended with 7")]
)
def test_what_is_planted_is_found_and_kept(
    parse: targets.Parse, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    target = target_of(parse)
    assert not fuzz.run(target, 0, TIME_MINUTES, LIMITS, tmp_path)
    assert said in capfd.readouterr().out
    (kept,) = tmp_path.iterdir()
    number = int(kept.stem.rpartition("-")[2])
    assert kept.read_bytes() == fuzz.input_of(target, 0, number)


@pytest.mark.parametrize("target", targets.TARGETS, ids=lambda target: target.name)
def test_every_parser_takes_what_is_whole_and_holds_for_a_few_inputs(
    target: targets.Target,
) -> None:
    whole = [seed for seed in target.seeds if not seed.startswith(b'{"a"')]
    with target.parser() as parse:
        for seed in whole:
            parse(seed)
        for number in range(25):
            assert fuzz.try_one(parse, fuzz.input_of(target, 1, number)) == ""
