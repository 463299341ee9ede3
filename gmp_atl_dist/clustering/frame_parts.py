"""Frames as assignment steps ask for them: part by part.

Shape suffixes: M frames, D hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FramePart:
    """Frames of one part: [M, D], fp16 or fp32, by group. ``load`` reads them; ``key`` tells parts apart.

    ``forget`` is called once they are on devices.
    """

    key: str
    load: Callable[[], Mapping[str, np.ndarray]]
    forget: Callable[[], None] = lambda: None
