"""Parts of a measurement that do not know of each other: each in a process, within a time, or failed.

A part adds rows to a file as it measures. What it measured before it failed, or before its time was over,
is kept. All rows are the JSON and the Markdown table of the benchmark.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.harness.child import Child
from benchmarks.harness.rounds import MeasurementError

_POLL_S = 0.5
_DIGITS = 4


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        what: was measured, for people.
        value: None where it was not measured; ``note`` says why.
        unit: of the value; "" for counts and yes (1) or no (0).
        key: of the benchmark's last line, "" for a figure that is only in the table.
        goal: text of the goal, e.g. ``>= 0.5``; "" without one.
        note: what the figure must be read with.
    """

    what: str
    value: float | None
    unit: str = ""
    key: str = ""
    goal: str = ""
    note: str = ""


class Rows:
    """Where a part puts its figures; picklable.

    Args:
        path: of the file; each figure is a line of JSON.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(
        self,
        what: str,
        value: float | None,
        unit: str = "",
        *,
        key: str = "",
        goal: str = "",
        note: str = "",
    ) -> None:
        """Keep a figure; see :class:`Row`. A value that is not finite is kept as None and noted."""
        if value is not None and not math.isfinite(value):
            note = f"{value}; {note}" if note else str(value)
            value = None
        row = Row(what, value, unit, key, goal, note)
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(row), allow_nan=False) + "\n")

    def read(self) -> list[Row]:
        """All figures so far. A last line that is still being written is left out."""
        text = self._path.read_text() if self._path.exists() else ""
        lines = text.split("\n")[:-1]
        return [Row(**json.loads(line)) for line in lines]


@dataclass(frozen=True)
class Part:
    """What became of a part.

    Attributes:
        error: why it failed, its last line first; "" if it did not.
    """

    name: str
    seconds: float
    rows: Sequence[Row] = field(default_factory=tuple)
    error: str = ""


def run_part(name: str, measure: Callable[[Rows], None], folder: Path, limit_s: float) -> Part:
    """Run ``measure`` in a process of its own, for at most ``limit_s`` seconds; prints rows as they come.

    Args:
        measure: a ``functools.partial`` of a function at the top of a module.
        folder: the rows are kept there, as ``NAME.jsonl``.
    """
    rows = Rows(folder / f"{name}.jsonl")
    print(f"\n{name}: at most {limit_s:.0f} s", flush=True)
    started_s = time.monotonic()
    child = Child(partial(measure, rows))
    shown, error = 0, ""
    try:
        ended = False
        while not ended and time.monotonic() - started_s < limit_s:
            ended = child.ended(_POLL_S)
            shown = _show(rows, shown)
        if ended:
            child.result()
        else:
            error = f"its {limit_s:.0f} s are over; the figures so far are kept"
    except (MeasurementError, RuntimeError) as e:
        error = _last_line_first(str(e))
    finally:
        child.close()
    _show(rows, shown)
    if error:
        print(f"  {name} FAILED: {error}", flush=True)
    return Part(name, round(time.monotonic() - started_s, 1), tuple(rows.read()), error)


def _show(rows: Rows, shown: int) -> int:
    new = rows.read()[shown:]
    for row in new:
        print(f"  {row.what}: {_value(row)}", flush=True)
    return shown + len(new)


def _last_line_first(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return "\n".join([lines[-1], *lines[:-1]]) if lines else "it ended without a word"


def markdown(title: str, machine: str, parts: Sequence[Part]) -> str:
    """A heading, one line about the machine, and one table of all rows."""
    lines = [
        f"## {title}",
        "",
        machine,
        "",
        "| part | figure | measured | goal | note |",
        "|---|---|---|---|---|",
    ]
    for part in parts:
        for row in part.rows:
            cells = (part.name, row.what, _value(row), row.goal, row.note)
            lines.append(f"| {' | '.join(map(_cell, cells))} |")
        ending = f"FAILED: {part.error.splitlines()[0]}" if part.error else "done"
        lines.append(f"| {part.name} | whole part | {part.seconds:.0f} s | | {_cell(ending)} |")
    return "\n".join(lines) + "\n"


def _value(row: Row) -> str:
    if row.value is None:
        return "not measured" + (f" ({row.note})" if row.note else "")
    return f"{row.value:.{_DIGITS}g} {row.unit}".strip()


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")
