"""Notes on input that is unlike what models are trained on. They do not stop a prediction.

A stored model does not tell what it was trained on, so the limits are fixed. Those of length follow
``corpus.min_s`` and ``corpus.max_s``, outside of which no recording is trained on by default.
A recording without any signal has no note: it is refused (``samples.is_silent``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.audio_measures import clipped_share, level_dbfs, zero_share
from gmp_atl_dist.config import MAX_UTTERANCE_S, AuditConfig
from gmp_atl_dist.samples import to_pcm16

SHORT_S = 0.5
LONG_S = MAX_UTTERANCE_S
LIMITS = AuditConfig()
"""The same limits as those that the audio audit has by default."""

NOTES = {
    "short": f"shorter than {SHORT_S:g} s",
    "long": f"longer than {LONG_S:g} s, and training is on shorter recordings; use --window",
    "partly_silent": f"more than {LIMITS.zero_share:.0%} of the samples are exactly zero",
    "silent_windows": "windows without any signal were left out; they count nowhere",
    "quiet": f"mean level below {LIMITS.quiet_dbfs:g} dBFS",
    "clipped": f"more than {LIMITS.clipped_share:.0%} of the samples are at full scale",
    "low_rate": f"sample rate below {SAMPLE_RATE_HZ} Hz, so high frequencies are missing",
}
"""What each code of a note means."""

_SHOWN = 3


def notes_of(
    samples: np.ndarray,
    source_rate_hz: int | None,
    *,
    windowed: bool,
    silent_windows: bool = False,
) -> tuple[str, ...]:
    """Codes of :data:`NOTES` for one recording.

    Args:
        samples: [num_samples] at 16 kHz, int16 or float32 with full scale 1.
        source_rate_hz: sample rate of the file; None if it is not known.
        windowed: it is predicted in windows, so its length does not matter.
        silent_windows: some of these were left out, because they hold no signal.
    """
    pcm16 = samples
    if samples.dtype != np.int16:
        pcm16 = to_pcm16(samples)
    seconds = len(pcm16) / SAMPLE_RATE_HZ
    if zero_share(pcm16) > LIMITS.zero_share:
        signal = "partly_silent"
    elif level_dbfs(pcm16) < LIMITS.quiet_dbfs:
        signal = "quiet"
    elif clipped_share(pcm16) > LIMITS.clipped_share:
        signal = "clipped"
    else:
        signal = ""
    found = {
        "short": seconds < SHORT_S,
        "long": seconds > LONG_S and not windowed,
        signal: bool(signal),
        "silent_windows": silent_windows,
        "low_rate": source_rate_hz is not None and source_rate_hz < SAMPLE_RATE_HZ,
    }
    return tuple(code for code, is_so in found.items() if is_so)


class NoteSummary:
    """Counts notes, and keeps the first few names of each. Its size does not grow with the recordings."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._names: dict[str, list[str]] = {}

    def add(self, name: str, codes: Sequence[str]) -> None:
        """Note the codes of one recording."""
        for code in codes:
            self._counts[code] = self._counts.get(code, 0) + 1
            names = self._names.setdefault(code, [])
            if len(names) < _SHOWN:
                names.append(name)

    def lines(self) -> list[str]:
        """One line for each note that occurred, in the order of :data:`NOTES`."""
        return [self._line(code) for code in NOTES if code in self._counts]

    def _line(self, code: str) -> str:
        count, names = self._counts[code], self._names[code]
        more = f" and {count - len(names)} more" if count > len(names) else ""
        recordings = "1 recording" if count == 1 else f"{count} recordings"
        return f"note: {code}: {recordings}: {NOTES[code]} ({', '.join(names)}{more})"
