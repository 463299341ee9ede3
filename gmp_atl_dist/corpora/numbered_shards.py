"""Shards whose names say how many there are, such as ``train-00002-of-00005.parquet``."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from gmp_atl_dist.errors import CorpusError

_NUMBERED = re.compile(r"(?P<before>.*-)(?P<number>\d+)-of-(?P<count>\d+)[^/]*")
"""What follows, such as a digest, may differ from shard to shard."""


def check_complete(uri: str, shards: Iterable[str], allow_incomplete: bool) -> None:
    """Refuse a set of shards that lacks some: the download was not finished, or a copy failed.

    Args:
        uri: of the corpus, for the error.
        shards: paths. Those that do not tell their count are not judged.
        allow_incomplete: ``corpus.allow_incomplete``: fewer shards are meant.

    Raises:
        CorpusError: names each missing shard.
    """
    numbers: dict[tuple[str, str], set[int]] = defaultdict(set)
    for path in shards:
        found = _NUMBERED.fullmatch(path)
        if found:
            numbers[found["before"], found["count"]].add(int(found["number"]))
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
    if missing and not allow_incomplete:
        raise CorpusError.of_all(
            f"{uri}: the names of its shards say that {len(missing)} more belong to them; copy the "
            f"missing ones, or set corpus.allow_incomplete = true to use what is there:",
            missing,
        )
