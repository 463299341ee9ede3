"""How the page writes numbers, names and times."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from gmp_atl_dist.metrics import Bounds, Spread

NOTHING = "–"  # noqa: RUF001 - an en dash fills empty cells
_MAX_NAMES = 8
_KIB = 1024.0


def percent(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.1f}\u00a0%"


def probability(value: float) -> str:
    """In percent. A softmax is never 0 or 1, so neither is shown."""
    shown = percent(value)
    limits = {percent(1.0): ">99.9\u00a0%", percent(0.0): "<0.1\u00a0%"}
    return limits.get(shown, shown)


def bounds(value: Bounds) -> str:
    return f"{100 * value[0]:.1f} {NOTHING} {100 * value[1]:.1f}\u00a0%"


def spread(value: Spread) -> str:
    """The mean in percent, with the standard deviation if there are several folds."""
    if value.std is None:
        return percent(value.mean)
    return f"{100 * value.mean:.1f} ± {100 * value.std:.1f}\u00a0%"


def names(value: Sequence[str]) -> str:
    more = len(value) - _MAX_NAMES
    shown = ", ".join(value[:_MAX_NAMES])
    return f"{shown} and {more} more" if more > 0 else shown or "none"


def data_size(value: float | None) -> str:
    """Bytes as KiB, MiB or GiB."""
    if not value:
        return NOTHING
    for unit in ("B", "KiB", "MiB"):
        if value < _KIB:
            return f"{value:.0f} {unit}"
        value /= _KIB
    return f"{value:.1f} GiB"


def duration(value: float | None) -> str:
    """Seconds as ``12.3 s``, ``4 min 05 s`` or ``3 h 07 min``."""
    if value is None:
        return NOTHING
    if value < 60:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02d} s"
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def moment(value: float | None) -> str:
    """Unix time as UTC, to the minute."""
    return NOTHING if value is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(value))


def fold_name(name: str) -> str:
    """``1`` is shown as ``fold 1``; longer names say enough."""
    return f"fold {name}" if len(name) <= 2 else name


def nowrap(text: str) -> str:
    """Keep a number and its percent sign on one line."""
    return text.replace(" %", "\u00a0%")


FILTERS: dict[str, Callable[..., object]] = {
    "percent": percent,
    "probability": probability,
    "bounds": bounds,
    "spread": spread,
    "names": names,
    "size": data_size,
    "duration": duration,
    "moment": moment,
    "fold": fold_name,
    "nowrap": nowrap,
    "count": "{:,}".format,
    "decimal": lambda value: NOTHING if value is None else f"{value:.3f}",
    "tenth": lambda value: NOTHING if value is None else f"{value:.1f}",
    "figure": lambda value: NOTHING if value is None else f"{value:.5g}",
}
"""Filters of the templates."""
