"""Synthetic voices: glottal pulses and noise through moving formants, in seven speaking styles.

The source is a train of Rosenberg's glottal pulses with jitter, shimmer and aspiration. The filter is
a cascade of four resonators that glide from vowel to vowel. An emotion sets pitch, its range and
slope, level, rate, spectral tilt and aspiration. Each utterance shows its emotion with a random
strength and a random error in each cue, so that emotions overlap.

Rosenberg, A. E. (1971). Effect of glottal pulse shape on the quality of natural vowels. JASA 49,
583-590. Vowels after Peterson and Barney (1952).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

from gmp_atl_dist.audio import SAMPLE_RATE_HZ

Signal = npt.NDArray[np.float64]

_FORMANTS_HZ = np.array(
    [
        [730, 1090, 2440, 3400],
        [270, 2290, 3010, 3600],
        [300, 870, 2240, 3300],
        [530, 1840, 2480, 3500],
        [570, 840, 2410, 3300],
        [660, 1720, 2410, 3500],
        [440, 1020, 2240, 3400],
    ],
    dtype=np.float64,
)
"""Vowels x 4 formants of a male voice."""
_BANDWIDTHS_HZ = np.array([80.0, 110.0, 160.0, 240.0])
_BLOCK = SAMPLE_RATE_HZ // 50
"""Samples during which the formants are constant: 20 ms."""


@dataclass(frozen=True, slots=True)
class Manner:
    """The speaking style of an emotion. The defaults are neutral."""

    pitch: float = 0.0
    """Octaves above the mean pitch of the speaker."""
    pitch_range: float = 0.10
    """Standard deviation of the pitch in octaves."""
    pitch_slope: float = -0.10
    """Change in octaves from the first syllable to the last."""
    level_db: float = 0.0
    syllables_per_s: float = 4.2
    tilt: float = 0.70
    """Pole of the low-pass filter of the source. A value closer to 1 sounds duller."""
    breath: float = 0.04
    """Level of aspiration relative to the pulses."""


# By the emotion codes of the corpus.
MANNERS = {
    "neu": Manner(),
    "hap": Manner(
        pitch=0.34,
        pitch_range=0.24,
        pitch_slope=0.06,
        level_db=2.5,
        syllables_per_s=4.8,
        tilt=0.62,
        breath=0.05,
    ),
    "exc": Manner(
        pitch=0.40,
        pitch_range=0.28,
        pitch_slope=0.10,
        level_db=3.0,
        syllables_per_s=5.0,
        tilt=0.60,
        breath=0.05,
    ),
    "ang": Manner(
        pitch=0.16,
        pitch_range=0.17,
        pitch_slope=-0.18,
        level_db=6.0,
        syllables_per_s=4.9,
        tilt=0.38,
        breath=0.015,
    ),
    "sad": Manner(
        pitch=-0.12,
        pitch_range=0.05,
        pitch_slope=-0.20,
        level_db=-5.0,
        syllables_per_s=3.2,
        tilt=0.84,
        breath=0.14,
    ),
    "fru": Manner(
        pitch=0.10,
        pitch_range=0.13,
        pitch_slope=-0.14,
        level_db=2.5,
        syllables_per_s=4.4,
        tilt=0.58,
        breath=0.03,
    ),
    "xxx": Manner(
        pitch=0.06,
        pitch_range=0.15,
        pitch_slope=-0.06,
        level_db=0.5,
        syllables_per_s=4.2,
        tilt=0.68,
        breath=0.05,
    ),
}


@dataclass(frozen=True, slots=True)
class Speaker:
    """A voice: mean pitch, formants relative to a man's, and typical level and tilt."""

    pitch_hz: float
    formant_scale: float
    level_db: float
    tilt: float


def draw_speaker(rng: np.random.Generator, gender: str) -> Speaker:
    """Draw a voice of gender F or M."""
    pitch_hz, formant_scale = (210.0, 1.16) if gender == "F" else (115.0, 1.0)
    return Speaker(
        pitch_hz=pitch_hz * 2 ** rng.normal(0.0, 0.12),
        formant_scale=formant_scale * (1 + rng.normal(0.0, 0.03)),
        level_db=rng.normal(0.0, 1.5),
        tilt=rng.normal(0.0, 0.04),
    )


def act(rng: np.random.Generator, manner: Manner) -> Manner:
    """The manner of one utterance: a random strength, and a random error of each cue."""
    neutral = MANNERS["neu"]
    strength = rng.uniform(0.5, 1.15)

    def shown(name: str, error: float, low: float, high: float) -> float:
        base = getattr(neutral, name)
        value = base + strength * (getattr(manner, name) - base) + rng.normal(0.0, error)
        return float(np.clip(value, low, high))

    return replace(
        manner,
        pitch=shown("pitch", 0.08, -1.0, 1.0),
        pitch_range=shown("pitch_range", 0.04, 0.02, 0.5),
        pitch_slope=shown("pitch_slope", 0.08, -0.5, 0.5),
        level_db=shown("level_db", 1.6, -12.0, 10.0),
        syllables_per_s=shown("syllables_per_s", 0.5, 2.0, 7.0),
        tilt=shown("tilt", 0.045, 0.1, 0.93),
        breath=shown("breath", 0.02, 0.005, 0.3),
    )


def speak(num_samples: int, speaker: Speaker, manner: Manner, rng: np.random.Generator) -> Signal:
    """One utterance: shape (num_samples,), full scale 1."""
    time_s = np.arange(num_samples) / SAMPLE_RATE_HZ
    num_syllables = max(2, round(time_s[-1] * manner.syllables_per_s))
    # Position in syllables from the start. Each syllable boundary has a random shift.
    place = time_s / time_s[-1] * num_syllables
    place = place + 0.25 * np.interp(
        place, np.arange(num_syllables + 1), rng.normal(0, 0.5, num_syllables + 1)
    )
    accents = np.interp(place, np.arange(num_syllables + 1), rng.normal(0, 1, num_syllables + 1))
    octaves = (
        manner.pitch
        + manner.pitch_slope * (time_s / time_s[-1] - 0.5)
        + manner.pitch_range * accents
    )
    source = _glottal_source(speaker.pitch_hz * 2**octaves, manner.breath, rng)
    pole = float(np.clip(manner.tilt + speaker.tilt, 0.05, 0.95))
    source = np.asarray(lfilter([1 - pole], [1, -pole], source))
    vowels = rng.integers(len(_FORMANTS_HZ), size=num_syllables + 2)
    voiced = _resonate(source, _FORMANTS_HZ[vowels] * speaker.formant_scale, place)
    swell = 0.15 + 0.85 * np.sin(np.pi * np.clip(place % 1.0, 0, 1)) ** 1.5
    voiced *= swell / np.sqrt(np.mean((voiced * swell) ** 2))
    # Consonants: noise at the start of about half of the syllables.
    hissing = (rng.random(num_syllables + 2) < 0.5)[np.clip(place, 0, num_syllables).astype(int)]
    hiss = np.diff(rng.normal(0, 0.25, num_samples + 1)) * hissing * (place % 1.0 < 0.15)
    ends = np.minimum(1.0, np.minimum(time_s, time_s[-1] - time_s) / 0.03)
    level = 0.03 * 10 ** ((manner.level_db + speaker.level_db) / 20)
    return level * ends * (voiced + hiss) + rng.normal(0.0, 3e-4, num_samples)


def _glottal_source(pitch_hz: Signal, breath: float, rng: np.random.Generator) -> Signal:
    """Derivative of the glottal flow plus aspiration, with the shape of ``pitch_hz``."""
    phase = np.cumsum(pitch_hz) / SAMPLE_RATE_HZ
    num_cycles = int(phase[-1]) + 3
    # Jitter shifts the start of each cycle by 1 % of a cycle. Shimmer changes its height by 6 %.
    phase = phase + np.interp(phase, np.arange(num_cycles), rng.normal(0, 0.01, num_cycles))
    phase = np.maximum(phase, 0.0)
    within = phase % 1.0
    rising, falling = 0.40, 0.16
    flow = np.where(
        within < rising,
        0.5 * (1 - np.cos(np.pi * within / rising)),
        np.where(within < rising + falling, np.cos(0.5 * np.pi * (within - rising) / falling), 0.0),
    )
    heights = 1 + rng.normal(0, 0.06, num_cycles + 1)
    cycle = np.clip(phase.astype(int), 0, num_cycles)
    pulses = np.diff(flow, prepend=0.0) * heights[cycle]
    pulses /= np.sqrt(np.mean(pulses**2))
    return pulses + 4 * breath * rng.normal(0, 1, len(phase)) * (0.3 + flow)


def _resonate(source: Signal, targets_hz: Signal, place: Signal) -> Signal:
    """Filter ``source`` with formants that glide along ``targets_hz`` (syllables x 4)."""
    signal = source
    at = np.clip(place[::_BLOCK], 0, len(targets_hz) - 1)
    for formant, bandwidth_hz in enumerate(_BANDWIDTHS_HZ):
        centre_hz = np.interp(at, np.arange(len(targets_hz)) + 0.5, targets_hz[:, formant])
        radius = np.exp(-np.pi * bandwidth_hz / SAMPLE_RATE_HZ)
        a1 = -2 * radius * np.cos(2 * np.pi * centre_hz / SAMPLE_RATE_HZ)
        a2 = radius**2
        state = np.zeros(2)
        filtered = np.empty_like(signal)
        for block, a in enumerate(a1):
            part = slice(block * _BLOCK, (block + 1) * _BLOCK)
            # Unit gain at 0 Hz, as in a cascade synthesiser.
            filtered[part], state = lfilter([1 + a + a2], [1, a, a2], signal[part], zi=state)
        signal = filtered
    return signal
