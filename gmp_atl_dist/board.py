"""The rows at the bottom of a terminal: those of stages, then that of the whole run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from gmp_atl_dist.progress_rows import crop, first_that_fits, stage_row


class WholeRun(Protocol):
    """Describes a run of many stages, for the rows that are shown as long as it lasts."""

    def stage_line(self) -> str:
        """What is under way, for a stage that shows no progress of its own; empty between stages."""
        ...

    def run_lines(self, stage_ends_in_s: float | None) -> Sequence[str]:
        """Where the whole run stands, in several wordings, the longest first."""
        ...


class Row:
    """The row of a stage. It may be updated from any thread."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._text: Callable[[int], str] = lambda width: stage_row(width, title, 0, None)
        self._ends_s: float | None = None

    def update(
        self,
        done: int,
        total: int,
        note: str = "",
        part: str = "",
        *,
        ends_in_s: float | None = None,
        measures: Sequence[str] = (),
    ) -> None:
        self._ends_s = None if ends_in_s is None else time.monotonic() + ends_in_s
        self._text = lambda width: stage_row(
            width,
            self._title,
            done,
            total,
            ends_in_s=self.ends_in_s,
            note=note,
            measures=measures,
        )

    @property
    def ends_in_s(self) -> float | None:
        """It goes down between two updates."""
        return None if self._ends_s is None else max(0.0, self._ends_s - time.monotonic())

    def text(self, width: int) -> str:
        return self._text(width)


class Board:
    """The rows at the bottom of the terminal: those of stages, then that of the whole run."""

    def __init__(self, run: WholeRun | None = None) -> None:
        self._run = run
        self._rows: tuple[Row, ...] = ()
        self._changing = threading.Lock()

    @contextmanager
    def showing(self, row: Row) -> Iterator[None]:
        with self._changing:
            self._rows = (*self._rows, row)
        try:
            yield
        finally:
            with self._changing:
                self._rows = tuple(r for r in self._rows if r is not row)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # One column less: some terminals begin a new line after the last one.
        width = max(1, options.max_width - 1)
        rows = self._rows
        lines = [row.text(width) for row in rows]
        if self._run is not None:
            if not rows and (stage := self._run.stage_line()):
                lines.append(crop(stage, width))
            ends_in_s = rows[-1].ends_in_s if rows else None
            lines.append(first_that_fits(width, self._run.run_lines(ends_in_s)))
        for line in lines:
            yield Text(line, no_wrap=True, overflow="crop")
