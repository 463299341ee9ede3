"""Cuts long recordings into overlapping windows. The middles of the windows make up the recording."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Window:
    """The model sees frames ``start`` to ``stop``; ``keep_start`` to ``keep_stop`` of them are kept."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


def windows(num_frames: int, most_frames: int, context_frames: int) -> list[Window]:
    """Windows of at most ``most_frames`` that keep every frame exactly once, in order.

    A recording that fits into one window is one window. Otherwise there are as few windows as possible, of
    even size. Each kept frame has ``context_frames`` on either side of it in its window, except at the ends
    of the recording.

    Raises:
        ValueError: a window would consist of context only.
    """
    if most_frames <= 2 * context_frames:
        raise ValueError(f"a window of {most_frames} frames has no room for 2 x {context_frames}")
    if num_frames <= most_frames:
        return [Window(0, num_frames, 0, num_frames)]
    count = -(-num_frames // (most_frames - 2 * context_frames))
    edges = [i * num_frames // count for i in range(count + 1)]
    return [
        Window(max(0, a - context_frames), min(num_frames, b + context_frames), a, b)
        for a, b in pairwise(edges)
    ]
