"""Miniature trees of corpora in their official layout: tiny recordings, and the files beside them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import soundfile as sf

RATE_HZ = 16_000


@cache
def recording(hz: float = 220.0, seconds: float = 0.2, suffix: str = "wav") -> bytes:
    """A tone as the bytes of a file."""
    samples = 0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)
    buffer = io.BytesIO()
    sf.write(buffer, samples, RATE_HZ, format=suffix.upper())
    return buffer.getvalue()


def write_tree(root: Path, audio: Iterable[str], texts: Mapping[str, str] | None = None) -> Path:
    """A corpus with these recordings and text files; each recording differs from the others."""
    for i, path in enumerate(audio):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(recording(200.0 + 10 * i))
    for path, text in (texts or {}).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return root
