"""The score by package, with its interval, and the survivors that are explained in ``docs/mutants.md``."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

OUTCOMES = ("killed", "timed out", "survived", "not reached", "unclear")
"""What becomes of a mutant. The first two count as killed, and the next two as survived.

``unclear``: the test that killed it also fails, or nearly takes its limit, without the mutation. It counts
for nothing.
"""
GOAL = 0.92
_Z = 1.959963984540054
_KEY = re.compile(r"^\| `([0-9a-f]{8})` \|", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """What became of one mutant."""

    key: str
    module: str
    package: str
    line: int
    operator: str
    before: str
    after: str
    outcome: str
    told: str


def wilson(killed: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval for the share ``killed / of``; (0, 1) for nothing.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    if of == 0:
        return 0.0, 1.0
    share, z2 = killed / of, _Z * _Z
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = _Z / (1 + z2 / of) * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of))
    return max(0.0, middle - half), min(1.0, middle + half)


def explained(page: Path) -> set[str]:
    """Keys of the survivors of which the page says why they are harmless."""
    return set(_KEY.findall(page.read_text())) if page.exists() else set()


def counts(outcomes: Sequence[str]) -> dict[str, float]:
    """Numbers by outcome, the score and its interval."""
    found = Counter(outcomes)
    killed = found["killed"] + found["timed out"]
    of = killed + found["survived"] + found["not reached"]
    low, high = wilson(killed, of)
    return {
        "mutants": of,
        **{name: found[name] for name in OUTCOMES},
        "score": killed / of if of else 0.0,
        "low": low,
        "high": high,
    }


def table(rows: Sequence[Row]) -> list[str]:
    """A table by package and, below each, by module."""
    head = f"{'':44}{'mutants':>8}{'killed':>8}{'timed out':>11}{'survived':>10}{'not reached':>13}"
    lines = [f"{head}{'score':>8}   95 % interval"]
    for package in sorted({row.package for row in rows}):
        of_it = [row for row in rows if row.package == package]
        lines.append(_line(package, counts([row.outcome for row in of_it])))
        for module in sorted({row.module for row in of_it}):
            name = "  " + module.removeprefix(f"gmp_atl_dist/{package}/")
            lines.append(
                _line(name, counts([r.outcome for r in of_it if r.module == module]), wide=False)
            )
    return [*lines, _line("all", counts([row.outcome for row in rows]))]


def _line(name: str, found: Mapping[str, float], *, wide: bool = True) -> str:
    numbers = f"{found['mutants']:8.0f}{found['killed']:8.0f}{found['timed out']:11.0f}"
    numbers += f"{found['survived']:10.0f}{found['not reached']:13.0f}"
    score = f"{found['score']:8.1%}   {found['low']:.1%} to {found['high']:.1%}" if wide else ""
    return f"{name:44}{numbers}{score}".rstrip()


def survivors(rows: Sequence[Row], known: set[str]) -> list[str]:
    """Those that survived, with what was altered; explained ones after the others."""
    lines: list[str] = []
    for row in sorted(rows, key=lambda row: (row.key in known, row.module, row.line)):
        if row.outcome in ("survived", "not reached", "unclear"):
            note = ", explained" if row.key in known else ""
            lines.append(
                f"{row.key} {row.outcome}{note}: {row.module}:{row.line} ({row.operator}; {row.told})"
            )
            lines += [f"    - {row.before}", f"    + {row.after}"]
    return lines


def summary(rows: Sequence[Row], known: set[str], seed: int, asked: int) -> str:
    """One JSON object: numbers of all mutants and by package, and keys of unexplained survivors."""
    left = [r.key for r in rows if r.outcome in ("survived", "not reached") and r.key not in known]
    packages = sorted({row.package for row in rows})
    return json.dumps(
        {
            "seed": seed,
            "asked": asked,
            **counts([row.outcome for row in rows]),
            "explained": sum(r.outcome in ("survived", "not reached") for r in rows) - len(left),
            "unexplained": left,
            "packages": {p: counts([r.outcome for r in rows if r.package == p]) for p in packages},
        }
    )
