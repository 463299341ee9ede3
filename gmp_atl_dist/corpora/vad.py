"""Long recordings of unlabelled speech, cut into utterances by their energy.

A frame of 20 ms is speech if it is at most ``below_db`` below the loud frames of its recording. Pauses up to
half a second belong to an utterance. A longer utterance than ``max_s`` is cut where it is quietest. Powers
are integers, so the cuts are the same on every machine.

Shape suffixes: N samples, T frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.errors import CorpusError

_FRAME = 320
_FRAMES_PER_S = SAMPLE_RATE_HZ // _FRAME
_PAUSE_FRAMES = _FRAMES_PER_S // 2
"""A shorter pause does not end an utterance."""
_EDGE_FRAMES = 5
"""Kept before and after speech, because the first and last sounds are often weak."""
_SMOOTHED_FRAMES = 5
_LOUD_PERCENT = 95
LONGEST_S = 6 * 3600.0
"""A longer recording is refused before memory is allocated for it: its bytes and its 16-bit samples are held
at once, 115 MB of samples an hour."""


@dataclass(frozen=True)
class SpeechCut:
    """How recordings longer than ``whole_s`` are cut. Shorter ones stay whole.

    So a short recording keeps the digest of its samples, and one that is tested on elsewhere is recognised.
    """

    whole_s: float
    min_s: float
    max_s: float
    below_db: float

    def spans(self, pcm16_N: npt.NDArray[np.int16]) -> list[tuple[int, int]]:
        """(first sample, sample after the last) of each utterance, in order, none of them overlapping.

        Raises:
            CorpusError: there is no speech in the recording.
        """
        if len(pcm16_N) <= self.whole_s * SAMPLE_RATE_HZ:
            return [(0, len(pcm16_N))]
        power_T = _powers(pcm16_N)
        sounding = power_T[power_T > 0]
        if not len(sounding):
            raise CorpusError("holds nothing but digital silence; leave it out")
        # One of the powers, not a mean of two.
        loud = np.sort(sounding)[(len(sounding) - 1) * _LOUD_PERCENT // 100]
        is_speech_T = power_T > float(loud) * 10 ** (-self.below_db / 10)
        spans: list[tuple[int, int]] = []
        for start, end in _joined(_runs(is_speech_T), len(power_T)):
            spans += self._within_limit(power_T, start, end)
        found = [(start * _FRAME, end * _FRAME) for start, end in spans]
        found = [(s, e) for s, e in found if e - s >= self.min_s * SAMPLE_RATE_HZ]
        if not found:
            raise CorpusError(
                f"holds no utterance of {self.min_s:g} s or more; leave it out, or lower min_s"
            )
        return found

    def _within_limit(
        self, power_T: npt.NDArray[np.int64], start: int, end: int
    ) -> list[tuple[int, int]]:
        """The span, cut at its quietest frames into pieces of at most ``max_s``."""
        most = max(2, int(self.max_s * _FRAMES_PER_S))
        pieces: list[tuple[int, int]] = []
        while end - start > most:
            # Not before the half, so that pieces are not needlessly short.
            low, high = start + most // 2, start + most
            sums = np.cumsum(np.concatenate([[0], power_T[low : high + _SMOOTHED_FRAMES - 1]]))
            smooth = sums[_SMOOTHED_FRAMES:] - sums[:-_SMOOTHED_FRAMES]
            at = low + (int(smooth.argmin()) if len(smooth) else high - low - 1) + 1
            pieces.append((start, at))
            start = at
        return [*pieces, (start, end)]


def segment_id(utterance_id: str, start: int, end: int) -> str:
    """``talk.mp3#00012.340-00015.200``: the limits in seconds, so that ids sort by time."""
    limits = "-".join(f"{sample / SAMPLE_RATE_HZ:09.3f}" for sample in (start, end))
    return f"{utterance_id}#{limits}"


def _powers(pcm16_N: npt.NDArray[np.int16]) -> npt.NDArray[np.int64]:
    """The sum of squares of each whole frame, exact; a rest at the end belongs to no frame."""
    frames = len(pcm16_N) // _FRAME
    power_T = np.empty(frames, np.int64)
    # In pieces, because the squares take four times the memory of the samples.
    step = 60 * _FRAMES_PER_S
    for first in range(0, frames, step):
        piece = pcm16_N[first * _FRAME : min(first + step, frames) * _FRAME].astype(np.int64)
        power_T[first : first + step] = (piece.reshape(-1, _FRAME) ** 2).sum(axis=1)
    return power_T


def _runs(is_speech_T: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(first frame, frame after the last) of each stretch of speech."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], is_speech_T.astype(np.int8), [0]])))
    return [(int(s), int(e)) for s, e in edges.reshape(-1, 2)]


def _joined(runs: list[tuple[int, int]], frames: int) -> list[tuple[int, int]]:
    """The runs, with short pauses filled and edges added."""
    joined: list[tuple[int, int]] = []
    for start, end in runs:
        if joined and start - joined[-1][1] < _PAUSE_FRAMES:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return [(max(0, s - _EDGE_FRAMES), min(frames, e + _EDGE_FRAMES)) for s, e in joined]
