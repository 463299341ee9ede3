"""Shards whose names are numbered: ``train-00002-of-00005.parquet``, or ``train-000002.tar``.

The first kind says how many there are. Of the second, only a gap between two numbers shows that one is
missing.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from gmp_atl_dist.errors import CorpusError

_NUMBERED = re.compile(r"(?P<before>.*-)(?P<number>\d+)-of-(?P<count>\d+)[^/]*")
"""What follows, such as a digest, may differ from shard to shard."""
_COUNTED = re.compile(r"(?P<before>(?:.*\D)?)(?P<number>\d{5,})(?P<after>\.tar)")
"""WebDataset numbers shards with six digits. Fewer than five may be a name: ``Ses01.tar``, ``2019.tar``."""


def check_complete(uri: str, shards: Iterable[str], allow_incomplete: bool) -> None:
    """Refuse a set of shards that lacks some: the download was not finished, or a copy failed.

    Args:
        uri: of the corpus, for the error.
        shards: paths. Those without a number are not judged. Of tar shards without a count, the numbers
            from the first to the last one must be there.
        allow_incomplete: ``corpus.allow_incomplete``: fewer shards are meant.

    Raises:
        CorpusError: names each missing shard.
    """
    numbers: dict[tuple[str, str], set[int]] = defaultdict(set)
    gaps: dict[tuple[str, str, int], set[int]] = defaultdict(set)
    for path in shards:
        if found := _NUMBERED.fullmatch(path):
            numbers[found["before"], found["count"]].add(int(found["number"]))
        elif found := _COUNTED.fullmatch(path):
            name = found["before"], found["after"], len(found["number"])
            gaps[name].add(int(found["number"]))
    missing: list[str] = []
    for (before, total), present in sorted(numbers.items()):
        count = int(total)
        # Mostly from 0 on; some writers begin with 1.
        first = 1 if count in present and 0 not in present else 0
        missing += [
            f"{before}{number:0{len(total)}d}-of-{total}"
            for number in range(first, first + count)
            if number not in present
        ]
    for (before, after, digits), present in sorted(gaps.items()):
        missing += [
            f"{before}{number:0{digits}d}{after}"
            for number in range(min(present), max(present))
            if number not in present
        ]
    if missing and not allow_incomplete:
        raise CorpusError.of_all(
            f"{uri}: the names of its shards say that {len(missing)} more belong to them; copy the "
            f"missing ones, or set corpus.allow_incomplete = true to use what is there:",
            missing,
        )
