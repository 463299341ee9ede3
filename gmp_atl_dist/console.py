"""What a person sees: progress bars on a terminal, plain lines everywhere else.

For machines (``runtime.log_format = "json"``) each line is a JSON object. It always has time, level, run,
stage, fold and message. Progress also has part (the part that was finished last), done and total. An error
also has log, the path of the run's log file, if there is one.
"""

from __future__ import annotations

import copy
import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Literal, Protocol, TextIO

from rich.console import Console
from rich.live import Live

from gmp_atl_dist.board import Board, Row, WholeRun
from gmp_atl_dist.errors import StoppedError
from gmp_atl_dist.progress_rows import duration
from gmp_atl_dist.redaction import say_error, value_without_secrets, without_secrets
from gmp_atl_dist.tags import Tags

_LINE_EVERY_S = 10.0
_REFRESH_HZ = 4.0


class Bar(Protocol):
    """Shows the progress of a stage."""

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
        """``note`` is the unit of the count; ``measures`` have the most important one first."""
        ...


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # rich would end the process with 1; the command line has a code of its own for it.
        raise BrokenPipeError


class Reporter:
    """Writes lines and progress to ``out``, and errors to ``err``."""

    def __init__(
        self,
        terminal: bool | None = None,
        log_format: Literal["text", "json"] = "text",
        run: str = "",
        out: TextIO | None = None,
        err: TextIO | None = None,
    ) -> None:
        """``run`` is the name of the run in JSON.

        Defaults: ``terminal`` is whether ``out`` is one; ``out`` and ``err`` are the standard streams.
        """
        self._json = log_format == "json"
        self._out = sys.stdout if out is None else out
        self._err = sys.stderr if err is None else err
        self._terminal = not self._json and (self._out.isatty() if terminal is None else terminal)
        self._console = _Console(highlight=False, emoji=False, soft_wrap=True, file=self._out)
        self._latest_tags = Tags(run)
        self._thread = threading.local()
        self._prefix = ""
        self._board: Board | None = None

    def named(self, name: str) -> Reporter:
        """The same output, with ``name`` before each line and row; for one of several runs at a time.

        On a terminal, make it within :meth:`whole_run`.
        """
        named = copy.copy(self)
        named._thread, named._prefix = threading.local(), f"{name}: "
        return named

    @property
    def _tags(self) -> Tags:
        """Of this thread: each may be in another stage. A library's thread has those that were set last."""
        return getattr(self._thread, "tags", self._latest_tags)

    @_tags.setter
    def _tags(self, tags: Tags) -> None:
        self._thread.tags = self._latest_tags = tags

    @property
    def is_terminal(self) -> bool:
        """Whether rows are shown that change; otherwise there are lines alone."""
        return self._terminal

    def line(self, text: str) -> None:
        """One line of plain text; nothing in it is markup."""
        if self._json:
            self._object(self._out, "info", self._tags, text)
        else:
            self._console.print(without_secrets(f"{self._prefix}{text}"), markup=False)

    def warning(self, text: str) -> None:
        """Something that did not stop the run. May be called from any thread."""
        if self._json:
            self._object(self._out, "warning", self._tags, text)
        else:
            shown = without_secrets(f"warning: {self._prefix}{text}")
            self._console.print(shown, markup=False)

    def stopping(self, text: str) -> None:
        """The run was asked to stop. May be called from any thread."""
        if self._json:
            self._object(self._out, "warning", self._tags, text)
        else:
            self._console.print(without_secrets(text), markup=False)

    def stopped(self, error: StoppedError, again: str, log: str = "") -> None:
        """The end of a run that was asked to stop: what is kept, how to continue, and the log file."""
        if self._json:
            more: dict[str, str | int] = {"exit_code": error.exit_code, "continue": again}
            self._object(
                self._err,
                "warning",
                self._tags,
                str(error),
                **more,
                **({"log": log} if log else {}),
            )
            return
        say_error(str(error), self._err)
        say_error(f"to continue: {again}", self._err)
        if log:
            say_error(log_line(log), self._err)

    def error(self, text: str, log: str = "") -> None:
        """What stopped the run; ``log`` is the path or URI of the run's log file, if there is one."""
        if self._json:
            more = {"log": log} if log else {}
            self._object(self._err, "error", self._tags, text, **more)
        else:
            say_error(f"error: {text}", self._err)
            if log:
                say_error(log_line(log), self._err)

    @contextmanager
    def tagged(self, tags: Tags) -> Iterator[None]:
        """Lines within the block get these tags."""
        before, self._tags = self._tags, tags
        yield
        # After an error they stay, because the error is reported later and belongs to this stage.
        self._tags = before

    @contextmanager
    def whole_run(self, run: WholeRun) -> Iterator[None]:
        """On a terminal, keep a row about the whole run below the one of the stage."""
        if not self._terminal:
            yield
            return
        with self._shown(Board(run)):
            yield

    @contextmanager
    def bar(self, tags: Tags, detail: str = "") -> Iterator[Bar]:
        """Show the progress of one stage, or of a part of it: a bar, or a line every ten seconds."""
        title = f"{self._prefix}{tags.label} {detail}".rstrip()
        if not self._terminal:
            yield _PlainBar(self, tags, title)
            return
        row = Row(title)
        if self._board is None:
            with self._shown(Board()) as board, board.showing(row):
                yield row
        else:
            with self._board.showing(row):
                yield row

    @contextmanager
    def _shown(self, board: Board) -> Iterator[Board]:
        # Standard output and error stay as they are: what libraries print there is not ours.
        live = Live(
            board,
            console=self._console,
            refresh_per_second=_REFRESH_HZ,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        with live:
            self._board = board
            try:
                yield board
            finally:
                self._board = None

    def progress(
        self,
        tags: Tags,
        title: str,
        done: int,
        total: int,
        note: str,
        part: str,
        *,
        ends_in_s: float | None = None,
        measures: Sequence[str] = (),
    ) -> None:
        """Write the progress of a stage as a line: count, expected end, measures."""
        end = "" if ends_in_s is None else f"{duration(ends_in_s)} left"
        words = ", ".join(filter(None, (note, end, *measures)))
        if self._json:
            counts: dict[str, str | int | float] = {"part": part, "done": done, "total": total}
            if ends_in_s is not None:
                counts["ends_in_s"] = round(ends_in_s)
            self._object(self._out, "info", tags, words, **counts)
        else:
            shown = without_secrets(f"{title}: {done}/{total} {words}".rstrip())
            self._console.print(shown, markup=False)

    def _object(
        self, to: TextIO, level: str, tags: Tags, text: str, **more: str | int | float
    ) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"time": now, "level": level, **asdict(tags), "message": text, **more}
        print(json.dumps(value_without_secrets(line), ensure_ascii=False), file=to, flush=True)


def log_line(log: str) -> str:
    """Where the run's log file is, as people read it."""
    return f"log of Ray and other libraries: {log}"


class _PlainBar:
    def __init__(self, reporter: Reporter, tags: Tags, title: str) -> None:
        self._reporter = reporter
        self._tags = tags
        self._title = title
        self._next_s = time.monotonic() + _LINE_EVERY_S

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
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + _LINE_EVERY_S
        self._reporter.progress(
            self._tags,
            self._title,
            done,
            total,
            note,
            part,
            ends_in_s=ends_in_s,
            measures=measures,
        )
