"""What a person sees: progress bars on a terminal, plain lines everywhere else.

Where a machine reads it, an object of JSON a line: always time, level, run, stage, fold and message; of
progress also part (the one that was done last), done and total.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Literal, Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from gmp_atl_dist.tags import Tags

_LINE_EVERY_S = 10.0


class Bar(Protocol):
    """Shows how far a stage is."""

    def update(self, done: int, total: int, note: str = "", part: str = "") -> None: ...


class Reporter:
    """Writes to standard output; ``terminal`` is found out unless given. ``run`` names JSON's run."""

    def __init__(
        self,
        terminal: bool | None = None,
        log_format: Literal["text", "json"] = "text",
        run: str = "",
    ) -> None:
        self._json = log_format == "json"
        self._terminal = not self._json and (sys.stdout.isatty() if terminal is None else terminal)
        self._console = Console(highlight=False, emoji=False, soft_wrap=True, file=sys.stdout)
        self._tags = Tags(run)

    def line(self, text: str) -> None:
        """One line of plain text; nothing in it is markup."""
        if self._json:
            self._object(sys.stdout, "info", self._tags, text)
        else:
            self._console.print(text, markup=False)

    def error(self, text: str) -> None:
        """What stopped the run, to standard error."""
        if self._json:
            self._object(sys.stderr, "error", self._tags, text)
        else:
            print(f"error: {text}", file=sys.stderr)

    @contextmanager
    def tagged(self, tags: Tags) -> Iterator[None]:
        """Lines within the block belong to this stage."""
        before, self._tags = self._tags, tags
        yield
        # Not restored after an error, because the error is reported later and belongs to this stage.
        self._tags = before

    @contextmanager
    def bar(self, tags: Tags, detail: str = "") -> Iterator[Bar]:
        """Progress of one stage, or of a part of it: a bar, or a line now and then."""
        title = f"{tags.label} {detail}".rstrip()
        if not self._terminal:
            yield _PlainBar(self, tags, title)
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            yield _RichBar(progress, title)

    def progress(self, tags: Tags, title: str, done: int, total: int, note: str, part: str) -> None:
        """The progress of a stage as a line."""
        if self._json:
            counts = {"part": part, "done": done, "total": total}
            self._object(sys.stdout, "info", tags, note, **counts)
        else:
            self.line(f"{title}: {done}/{total} {note}".rstrip())

    def _object(self, to: TextIO, level: str, tags: Tags, text: str, **more: str | int) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"time": now, "level": level, **asdict(tags), "message": text, **more}
        print(json.dumps(line, ensure_ascii=False), file=to, flush=True)


class _PlainBar:
    def __init__(self, reporter: Reporter, tags: Tags, title: str) -> None:
        self._reporter = reporter
        self._tags = tags
        self._title = title
        self._next_s = time.monotonic() + _LINE_EVERY_S

    def update(self, done: int, total: int, note: str = "", part: str = "") -> None:
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + _LINE_EVERY_S
        self._reporter.progress(self._tags, self._title, done, total, note, part)


class _RichBar:
    def __init__(self, progress: Progress, title: str) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=None, note="")

    def update(self, done: int, total: int, note: str = "", part: str = "") -> None:
        self._progress.update(self._task, completed=done, total=total, note=note)
