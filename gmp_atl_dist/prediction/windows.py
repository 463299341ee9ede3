"""Windows of a recording, and one verdict from their probabilities.

Shapes: W windows, S segments of time, K emotions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gmp_atl_dist.audio import MIN_SAMPLES, SAMPLE_RATE_HZ
from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.samples import is_silent


@dataclass(frozen=True)
class WindowPlan:
    """Windows of ``window_s`` seconds, one every ``hop_s`` seconds.

    Raises:
        ConfigError: a window is too short for the model, or there would be gaps between windows.
    """

    window_s: float
    hop_s: float

    def __post_init__(self) -> None:
        if not self.window_s * SAMPLE_RATE_HZ >= MIN_SAMPLES:
            raise ConfigError(
                f"window {self.window_s:g} s is too short for the model; use at least "
                f"{MIN_SAMPLES / SAMPLE_RATE_HZ:g} s, better 2 s or more"
            )
        if not 1 / SAMPLE_RATE_HZ <= self.hop_s <= self.window_s:
            raise ConfigError(
                f"hop {self.hop_s:g} s: use a value above 0 and at most the window of "
                f"{self.window_s:g} s, so that no part of a recording is left out"
            )

    def cut(self, num_samples: int) -> list[tuple[int, int]]:
        """(first sample, sample after the last) of each window, in order.

        All have the same length. The last one ends with the recording, so it may begin earlier than a hop
        after the one before. A recording that is shorter than a window is one window.
        """
        length, hop = round(self.window_s * SAMPLE_RATE_HZ), round(self.hop_s * SAMPLE_RATE_HZ)
        if num_samples <= length:
            return [(0, num_samples)]
        starts = list(range(0, num_samples - length + 1, hop))
        if starts[-1] + length < num_samples:
            starts.append(num_samples - length)
        return [(start, start + length) for start in starts]


def with_signal(samples: np.ndarray, clips: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The clips of samples (N,) that are not silent, because a model names an emotion for silence too."""
    return [(start, end) for start, end in clips if not is_silent(samples[start:end])]


def verdict_of(
    windows: Sequence[tuple[int, int]], probabilities: npt.ArrayLike
) -> tuple[float, ...]:
    """K probabilities of the whole recording: the mean over time, in which every moment counts the same.

    A moment that no window sees does not count: windows without a signal are left out.

    The probabilities at a moment are the mean of those of the windows that see it. A plain mean over windows
    would count the middle of a recording more often than its ends.

    Args:
        windows: W half-open intervals, at least one.
        probabilities: W rows of K.
    """
    bounds_W2 = np.array(windows, np.int64)
    p_WK = np.array(probabilities, np.float64)
    edges = np.unique(bounds_W2)
    first_W, end_W = (np.searchsorted(edges, bounds_W2[:, side]) for side in (0, 1))
    change = np.zeros((len(edges), 1 + p_WK.shape[1]))
    counted = np.concatenate([np.ones((len(p_WK), 1)), p_WK], axis=1)
    np.add.at(change, first_W, counted)
    np.add.at(change, end_W, -counted)
    sums = np.cumsum(change, axis=0)[:-1]
    seen_S = np.rint(sums[:, 0])
    at_SK = sums[:, 1:] / np.maximum(seen_S, 1)[:, None]
    weight_S = np.where(seen_S, np.diff(edges), 0)
    weight_S = weight_S / weight_S.sum()
    mean_K = weight_S @ at_SK
    return tuple((mean_K / mean_K.sum()).tolist())
