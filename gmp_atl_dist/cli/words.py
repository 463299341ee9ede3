"""Times, sizes and shares as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from gmp_atl_dist.store.runs import Score


def when(unix_s: float | None) -> str:
    """A time of this machine's clock: ``2026-11-26 14:05``; empty for None."""
    if unix_s is None:
        return ""
    return f"{datetime.fromtimestamp(unix_s).astimezone():%Y-%m-%d %H:%M}"


def how_long(seconds: float | None) -> str:
    """``3 s``, ``2:05 min``, ``1:02:03 h``, ``2 d 01:30 h``; empty for None."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours == 0:
        return f"{minutes}:{s:02d} min"
    if hours < 24:
        return f"{hours}:{minutes:02d}:{s:02d} h"
    return f"{hours // 24} d {hours % 24:02d}:{minutes:02d} h"


def size(num_bytes: int | None) -> str:
    """``12.3 KiB``, ``12.3 MiB`` or ``1.23 GiB``, the units of the report; empty for None."""
    if num_bytes is None:
        return ""
    if num_bytes >= 1 << 30:
        return f"{num_bytes / (1 << 30):.2f} GiB"
    if num_bytes >= 1 << 20:
        return f"{num_bytes / (1 << 20):.1f} MiB"
    return f"{num_bytes / (1 << 10):.1f} KiB"


def score(value: Score | None, *, interval: bool = True) -> str:
    """``61.2 % (55.0 to 67.1)``; empty for None."""
    if value is None:
        return ""
    words = f"{100 * value.value:.1f} %"
    return f"{words} ({100 * value.low:.1f} to {100 * value.high:.1f})" if interval else words


def device_hours(hours: Mapping[str, float]) -> str:
    """``1.5 core-hours, 0.2 GPU-hours``, of hours by ``CPU`` and ``GPU``."""
    return f"{hours.get('CPU', 0.0):.3g} core-hours, {hours.get('GPU', 0.0):.3g} GPU-hours"


def costs(price: float | None, currency: str) -> str:
    """``, 12.30 EUR``; empty where no price is known."""
    return "" if price is None else f", {price:,.2f} {currency}".rstrip()
