"""Spectrograms with frame labels below them and a time axis, ready for the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gmp_atl_dist.report.codebook_content import TimelineScale
from gmp_atl_dist.report.images import spectrogram_uri, strip_uri
from gmp_atl_dist.report.spectrogram import FRAMES_PER_S, Spectrogram

_STEPS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_MOST_TICKS = 7


@dataclass(frozen=True, slots=True)
class Strip:
    """The labels of one scale."""

    name: str
    uri: str


@dataclass(frozen=True, slots=True)
class TimePicture:
    """``ticks`` are (position in percent of the width, text)."""

    spectrogram: str | None
    strips: tuple[Strip, ...]
    ticks: tuple[tuple[float, str], ...]
    seconds: float

    @classmethod
    def of(
        cls, spectrogram: Spectrogram | None, scales: Sequence[TimelineScale]
    ) -> TimePicture | None:
        """None if there is nothing to draw."""
        frames = max([spectrogram.frames if spectrogram else 0, *(len(s.labels) for s in scales)])
        if not frames:
            return None
        seconds = frames / FRAMES_PER_S
        return cls(
            spectrogram=spectrogram_uri(spectrogram) if spectrogram else None,
            strips=tuple(
                Strip(f"layer {s.layer}, k = {s.k:,}", strip_uri(s.labels)) for s in scales
            ),
            ticks=_ticks(seconds),
            seconds=seconds,
        )


def _ticks(seconds: float) -> tuple[tuple[float, str], ...]:
    step = next((s for s in _STEPS_S if seconds / s <= _MOST_TICKS), _STEPS_S[-1])
    number = int(seconds / step + 1e-9)
    return tuple((round(100 * i * step / seconds, 2), f"{i * step:g}") for i in range(number + 1))
