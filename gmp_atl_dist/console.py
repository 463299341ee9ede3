"""What a person sees: progress bars on a terminal, plain lines everywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

_LINE_EVERY_S = 10.0


class Bar(Protocol):
    """Shows how far a stage is."""

    def update(self, done: int, total: int, note: str = "") -> None: ...


class Reporter:
    """Writes to standard output; ``terminal`` is found out unless given."""

    def __init__(self, terminal: bool | None = None) -> None:
        self._terminal = sys.stdout.isatty() if terminal is None else terminal
        self._console = Console(highlight=False, emoji=False, soft_wrap=True, file=sys.stdout)

    def line(self, text: str) -> None:
        """One line of plain text; nothing in it is markup."""
        self._console.print(text, markup=False)

    @contextmanager
    def bar(self, label: str) -> Iterator[Bar]:
        """Progress of one stage: a bar, or a line now and then."""
        if not self._terminal:
            yield _PlainBar(self, label)
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            yield _RichBar(progress, label)


class _PlainBar:
    def __init__(self, reporter: Reporter, label: str) -> None:
        self._reporter = reporter
        self._label = label
        self._next_s = time.monotonic() + _LINE_EVERY_S

    def update(self, done: int, total: int, note: str = "") -> None:
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + _LINE_EVERY_S
        self._reporter.line(f"{self._label}: {done}/{total} {note}".rstrip())


class _RichBar:
    def __init__(self, progress: Progress, label: str) -> None:
        self._progress = progress
        self._task = progress.add_task(label, total=None, note="")

    def update(self, done: int, total: int, note: str = "") -> None:
        self._progress.update(self._task, completed=done, total=total, note=note)
