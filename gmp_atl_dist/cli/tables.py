"""Tables for people: at full width, or one block per row where the terminal is too narrow."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_WIDEST = 10_000


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table without cutting any cell, because a name that is cut cannot be typed again.

    A pipe or a file gets the whole table. On a terminal that is too narrow for it, each row is a block: the
    first cell, and below it the others with their headings.
    """
    table = Table(*headings)
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console(highlight=False)
    options = console.options.update(max_width=_WIDEST)
    needed = Measurement.get(console, options, table).maximum
    if not console.is_terminal:
        Console(width=needed, highlight=False).print(table)
    elif needed <= console.width:
        console.print(table)
    else:
        for row in rows:
            console.print(Text(row[0]), soft_wrap=True)
            for heading, cell in zip(headings[1:], row[1:], strict=True):
                if cell:
                    console.print(Text(f"  {heading}: {cell}"), soft_wrap=True)
