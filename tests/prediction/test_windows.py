"""Windows of a recording, the verdict over them, and notes on unusual input."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.prediction.notes import NOTES, NoteSummary, notes_of
from gmp_atl_dist.prediction.windows import WindowPlan, verdict_of

SECOND = 16_000


def test_windows_reach_the_end_with_their_full_length() -> None:
    plan = WindowPlan(3.0, 1.0)
    assert plan.cut(2 * SECOND) == [(0, 2 * SECOND)]
    assert plan.cut(3 * SECOND) == [(0, 3 * SECOND)]
    assert plan.cut(5 * SECOND) == [(i * SECOND, (i + 3) * SECOND) for i in range(3)]
    assert plan.cut(4 * SECOND + 8_000)[-1] == (SECOND + 8_000, 4 * SECOND + 8_000)


@given(
    st.integers(400, 400_000),
    st.floats(0.025, 5, allow_nan=False),
    st.floats(0.01, 1, allow_nan=False),
)
def test_no_sample_is_left_out(num_samples: int, window_s: float, share: float) -> None:
    cuts = WindowPlan(window_s, window_s * share).cut(num_samples)
    assert cuts[0][0] == 0
    assert cuts[-1][1] == num_samples
    assert all(b[0] <= a[1] and b[0] > a[0] for a, b in pairwise(cuts))


@pytest.mark.parametrize(("window_s", "hop_s"), [(0.01, 0.01), (3, 0), (3, 4), (float("nan"), 1)])
def test_windows_that_make_no_sense(window_s: float, hop_s: float) -> None:
    with pytest.raises(ConfigError):
        WindowPlan(window_s, hop_s)


def test_every_moment_counts_the_same() -> None:
    # Seconds 0-1 are seen by the first window alone, 1-2 by both, 2-4 by the second alone.
    verdict = verdict_of([(0, 2), (1, 4)], [(1.0, 0.0), (0.0, 1.0)])
    assert verdict == pytest.approx(((1 + 0.5) / 4, (0.5 + 2) / 4))


@given(st.integers(1, 40), st.integers(1, 7), st.integers(0, 9))
def test_the_verdict_is_the_mean_over_every_sample(count: int, hop: int, seed: int) -> None:
    windows = [(i * hop, i * hop + 7) for i in range(count)]
    p_WK = np.random.default_rng(seed).dirichlet([1, 1, 1], count)
    at = [
        np.mean([p for (a, b), p in zip(windows, p_WK, strict=True) if a <= t < b], axis=0)
        for t in range(windows[-1][1])
    ]
    np.testing.assert_allclose(verdict_of(windows, p_WK), np.mean(at, axis=0), atol=1e-12)


def noise(seconds: float, level: float = 3000.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (level * rng.normal(size=int(seconds * SECOND))).clip(-32768, 32767).astype(np.int16)


def test_notes() -> None:
    def codes(samples: np.ndarray, rate_hz: int | None = 16_000, *, windowed: bool = False):
        return notes_of(samples, rate_hz, windowed=windowed)

    assert codes(noise(2)) == ()
    assert codes(noise(0.2)) == ("short",)
    assert codes(noise(61)) == ("long",)
    assert codes(noise(61), windowed=True) == ()
    half = noise(2)
    half[: int(1.2 * SECOND)] = 0
    assert codes(half) == ("partly_silent",)
    assert codes(noise(2, 20.0)) == ("quiet",)
    assert codes(noise(2, 30_000.0)) == ("clipped",)
    assert codes(noise(2), 8_000) == ("low_rate",)
    assert codes(noise(2), None) == ()
    assert codes(noise(0.2, 20.0).astype(np.float32) / 32768) == ("short", "quiet")


def test_notes_are_grouped_whatever_their_number() -> None:
    summary = NoteSummary()
    for i in range(10_000):
        summary.add(f"{i}.wav", ("quiet", "short") if i == 7 else ("quiet",))
    assert summary.lines() == [
        f"note: short: 1 recording: {NOTES['short']} (7.wav)",
        f"note: quiet: 10000 recordings: {NOTES['quiet']} (0.wav, 1.wav, 2.wav and 9997 more)",
    ]
