"""How a recording is cut into clips: the whole, and windows for emotion over time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.prediction.windows import WindowPlan, with_signal
from gmp_atl_dist.serving.limits import LONGEST_CLIP_S, MOST_CLIPS
from gmp_atl_dist.serving.refusals import Refusal

Span = tuple[int, int]
"""First sample of a clip, and the one after the last."""
_LONGEST_CLIP = int(LONGEST_CLIP_S * SAMPLE_RATE_HZ)
_DEFAULT_WINDOW_S = 10.0


@dataclass(frozen=True)
class ClipJob:
    """Clips of one recording that are computed together: int16 samples (N,), and spans within them."""

    pcm16: npt.NDArray[np.int16]
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class ClipPlan:
    """``whole`` is None where the recording is too long for one clip: then windows stand for it."""

    whole: Span | None
    windows: tuple[Span, ...]

    @property
    def spans(self) -> tuple[Span, ...]:
        return (*([] if self.whole is None else [self.whole]), *self.windows)

    def without_silence(self, pcm16: npt.NDArray[np.int16]) -> ClipPlan:
        """The plan without windows that hold no signal; all windows if each of them holds none."""
        return replace(self, windows=tuple(with_signal(pcm16, self.windows)) or self.windows)


def plan_clips(num_samples: int, window_s: float | None, hop_s: float | None) -> ClipPlan:
    """The clips of a recording.

    A recording of at most 30 s is one clip. With ``window_s`` there are windows as well, cut as
    ``gmp-atl predict`` cuts them; without ``hop_s`` the hop is a third of a window. A longer recording
    always has windows, of 10 s without ``window_s``.

    Raises:
        Refusal: 400, a window or hop cannot be used, or there would be too many windows.
    """
    if hop_s is not None and window_s is None:
        raise Refusal(400, "bad_window", f"hop {hop_s:g} needs a window; give window=3 as well")
    whole = (0, num_samples) if num_samples <= _LONGEST_CLIP else None
    if window_s is None and whole is not None:
        return ClipPlan(whole, ())
    window_s = _DEFAULT_WINDOW_S if window_s is None else window_s
    hop_s = window_s / 3 if hop_s is None else hop_s
    if window_s > LONGEST_CLIP_S:
        raise Refusal(
            400, "bad_window", f"window {window_s:g} s is longer than {LONGEST_CLIP_S:g} s"
        )
    try:
        plan = WindowPlan(window_s, hop_s)
    except ConfigError as e:
        raise Refusal(400, "bad_window", e.message) from None
    if num_samples / (hop_s * SAMPLE_RATE_HZ) > MOST_CLIPS:
        raise Refusal(
            400,
            "bad_window",
            f"hop {hop_s:g} s cuts this recording into more than {MOST_CLIPS} windows; give a longer one",
        )
    return ClipPlan(whole, tuple(plan.cut(num_samples)))


def jobs_of(pcm16: npt.NDArray[np.int16], spans: Sequence[Span]) -> Iterator[ClipJob]:
    """The clips in order, in jobs of at most 30 s of clips, so that long recordings let others pass."""
    rest = list(spans)
    while rest:
        taken = [rest.pop(0)]
        while rest and sum(e - s for s, e in [*taken, rest[0]]) <= _LONGEST_CLIP:
            taken.append(rest.pop(0))
        first, last = min(s for s, _ in taken), max(e for _, e in taken)
        yield ClipJob(
            np.ascontiguousarray(pcm16[first:last]), tuple((s - first, e - first) for s, e in taken)
        )
