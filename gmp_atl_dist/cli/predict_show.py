"""Shows predictions as they come: lines or a file, a bar, and at the end notes, counts and bad recordings."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Generator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from gmp_atl_dist.cli.predict_lines import Columns, PlainLines, Tally
from gmp_atl_dist.cli.stops import stopped_with, whole_row
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.errors import CorpusError, GmpAtlError
from gmp_atl_dist.tags import Tags

if TYPE_CHECKING:
    from gmp_atl_dist.prediction.files import PredictionFile
    from gmp_atl_dist.prediction.results import RecordingPrediction
    from gmp_atl_dist.prediction.stream import ClipCount


def show(
    results: Generator[RecordingPrediction],
    emotions: Sequence[str],
    out: Path | None,
    *,
    total: int,
    longest: int,
    lines: bool = True,
    clips: ClipCount | None = None,
    warning: str = "",
) -> int:
    """Print or write results as they come, then notes, counts and bad recordings.

    Args:
        total: recordings, for the progress bar.
        longest: characters of the longest name.
        lines: print results where there is no ``out``.
        clips: the count of clips, which moves within a long recording.
        warning: is shown before the notes.

    Raises:
        CorpusError: recordings could not be predicted; names them. Everything else is done.
    """
    from gmp_atl_dist.prediction.files import open_predictions

    terminal = sys.stdout.isatty()
    printer = Reporter()
    asides = printer if terminal else Reporter(out=sys.stderr)
    width = shutil.get_terminal_size().columns
    layout = Columns(width, longest, emotions) if terminal else PlainLines()
    tally = Tally()
    opened = open_predictions(out, emotions) if out is not None else nullcontext()
    with opened as file, asides.bar(Tags(stage="predict")) as bar:

        def update() -> None:
            if total == 1 and clips is not None and clips.known > 1:
                bar.update(clips.done, clips.known, "windows")
            else:
                bar.update(tally.done, total)

        if clips is not None:
            clips.changed = update
        try:
            for line in layout.header() if lines and file is None else ():
                printer.line(line)
            for result in results:
                if file is not None:
                    with whole_row():
                        file.add(result)
                elif lines:
                    for line in layout.lines(result):
                        printer.line(line)
                tally.add(result)
                update()
        except KeyboardInterrupt:
            raise stopped_with(_finished_part(file, out, tally.done, total)) from None
        except GmpAtlError:
            if file is not None:
                file.keep_partial()
            raise
        if file is not None:
            file.finish()
    if warning:
        asides.warning(warning)
    for line in tally.notes.lines():
        asides.line(line)
    if total > 1 or out is not None:
        asides.line(tally.summary() + (f"; written to {out}" if out is not None else ""))
    if problem := tally.problem():
        raise CorpusError(problem)
    return 0


def _finished_part(file: PredictionFile | None, out: Path | None, done: int, total: int) -> str:
    """What a person has after a stop."""
    if file is None:
        return f"{done} of {total} recordings were predicted"
    partial = file.keep_partial()
    if partial is None:
        return f"no recording was predicted; {out} was not written"
    return f"{file.written} of {total} recordings are in {partial}; {out} was not written"
