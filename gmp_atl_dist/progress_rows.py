"""The rows of the progress display, as text of a given width: what matters first, the rest cropped."""

from __future__ import annotations

from collections.abc import Sequence

_LEAST_BAR, _MOST_BAR = 6, 30
_LEAST_TITLE = 8
_LEAST_REST = 8
_MEASURES = 3


def stage_row(
    width: int,
    title: str,
    done: int,
    total: int | None,
    *,
    ends_in_s: float | None = None,
    note: str = "",
    measures: Sequence[str] = (),
) -> str:
    """Title, bar, count, expected end, and up to three measures as far as there is room.

    Nothing is wider than ``width`` columns. On a narrow terminal the title is cropped first.
    """
    count = f"{done}/{'?' if total is None else total}"
    end = "" if ends_in_s is None else f"{duration(ends_in_s)} left"
    if width < 60:
        end = end.removesuffix(" left")
    length = max(_LEAST_BAR, min(_MOST_BAR, width // 8 - 1))
    head = " ".join(filter(None, (bar(done, total, length), count, end)))
    row = f"{crop(title, max(_LEAST_TITLE, width - len(head) - 1))} {head}"
    separator = "  "
    # The unit is worth a place only where nothing was measured.
    for measure in measures[:_MEASURES] or filter(None, (note,)):
        room = width - len(row) - len(separator)
        if len(measure) > room and separator != "  ":
            break
        if room >= _LEAST_REST:
            row += separator + crop(measure, room)
        separator = ", "
    return crop(row, width)


def run_wordings(
    stage: tuple[int, int] | None,
    fold: tuple[int, int] | None,
    ends_in_s: float | None,
    *,
    at_least: bool,
) -> tuple[str, ...]:
    """Where a whole run stands, in several wordings, the longest first.

    ``stage`` and ``fold`` are (number, of how many). ``ends_in_s`` is an estimate, of the known part of the
    run alone where ``at_least``; None where there is none.
    """
    # The known part may be at its end while the rest has no estimate.
    if ends_in_s is None or (at_least and ends_in_s < 1):
        end, brief, least = "no estimate yet for the whole run", "end not known yet", "end ?"
    else:
        # A lower bound is not rounded up: "more than 1 min" would be wrong 20 s before the end.
        exact = at_least and ends_in_s < 90
        rough = duration(ends_in_s) if exact else about(ends_in_s).removeprefix("about ")
        end = f"whole run ends in {'more than' if at_least else 'about'} {rough}"
        brief = f"{'over' if at_least else 'about'} {rough} left"
        least = f"{'>' if at_least else ''}{rough} left"
    places = [(name, at) for name, at in (("stage", stage), ("fold", fold)) if at is not None]
    long = [f"{name} {number} of {count}" for name, (number, count) in places]
    short = [f"{name} {number}/{count}" for name, (number, count) in places]
    return tuple(
        ", ".join([*where, when])
        for where, when in ((long, end), (long, brief), (short, brief), (short, least))
    )


def first_that_fits(width: int, wordings: Sequence[str]) -> str:
    """The first of several wordings that is not wider than ``width``; else the last one, cropped."""
    return next((w for w in wordings if len(w) <= width), crop(wordings[-1], width))


def bar(done: int, total: int | None, length: int) -> str:
    """A bar of ``length`` characters."""
    full = int(length * min(done, total) / total) if total else 0
    return "━" * full + "─" * (length - full)


def crop(text: str, width: int) -> str:
    """``text``, with an ellipsis where it does not fit."""
    return text if len(text) <= width else f"{text[: max(0, width - 1)].rstrip()}…"


def duration(seconds: float) -> str:
    """Two units at most: ``40 s``, ``12 min``, ``2 h 05 min``, ``3 d 4 h``."""
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def about(seconds: float) -> str:
    """A duration that is only estimated, without false digits: ``about 2 h``, ``about 40 min``."""
    if seconds < 90:
        return "about 1 min"
    minutes = seconds / 60
    if minutes < 90:
        step = 1 if minutes < 10 else 5
        return f"about {round(minutes / step) * step} min"
    hours = minutes / 60
    if hours < 36:
        return f"about {hours:.0f} h" if hours >= 10 else f"about {_half(hours)} h"
    return f"about {_half(hours / 24)} d"


def _half(value: float) -> str:
    return f"{round(value * 2) / 2:g}"
