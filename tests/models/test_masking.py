"""Span masks: never out of range, never everything, the same for the same state."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmp_atl_dist.models.masking import span_mask


@given(
    num_frames=st.integers(0, 120),
    prob=st.floats(0, 1),
    length_frames=st.integers(1, 200),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_mask_is_always_usable(
    num_frames: int, prob: float, length_frames: int, seed: int
) -> None:
    def draw() -> np.ndarray:
        rng = np.random.default_rng(seed)
        return span_mask(num_frames, prob=prob, length_frames=length_frames, rng=rng)

    mask_T = draw()
    assert mask_T.dtype == np.bool_
    assert mask_T.shape == (num_frames,)
    assert np.array_equal(mask_T, draw())
    if prob > 0 and num_frames > 0:
        assert mask_T.any()
    if prob == 0:
        assert not mask_T.any()
    if num_frames > 1:
        assert not mask_T.all()


@pytest.mark.parametrize("num_frames", [1, 2, 5, 9, 10, 11])
def test_clips_shorter_than_a_span_are_masked_in_part(num_frames: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        mask_T = span_mask(num_frames, prob=0.8, length_frames=10, rng=rng)
        assert 1 <= mask_T.sum() <= max(1, num_frames - 1)


@pytest.mark.parametrize("num_frames", [3, 5, 9])
def test_a_clip_shorter_than_a_span_has_one_span(num_frames: int) -> None:
    """By its number of frames and the configured length: 0.8 x 9 / 10 is below 1."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        (visible,) = np.flatnonzero(~span_mask(num_frames, prob=0.8, length_frames=10, rng=rng))
        assert visible in (0, num_frames - 1)


def test_the_share_is_huberts_and_every_frame_has_its_turn() -> None:
    rng = np.random.default_rng(0)
    masks = np.stack([span_mask(500, prob=0.8, length_frames=10, rng=rng) for _ in range(400)])
    # 40 spans of 10 in 500 frames at distinct random places leave about exp(-0.8) = 0.45 uncovered.
    assert masks.mean() == pytest.approx(0.55, abs=0.02)
    inner = masks[:, 10:-10].mean(0)
    assert inner.min() > 0.4
    assert inner.max() < 0.7
    assert masks[:, [0, -1]].any(0).all()


def test_masked_frames_come_in_whole_spans() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        mask_T = span_mask(300, prob=0.3, length_frames=7, rng=rng)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], mask_T.astype(int), [0]])))
        assert (edges[1::2] - edges[::2]).min() >= 7


@pytest.mark.parametrize(("frames", "prob", "length"), [(-1, 0.5, 1), (5, 1.5, 1), (5, 0.5, 0)])
def test_nonsense_is_refused(frames: int, prob: float, length: int) -> None:
    with pytest.raises(ValueError, match="out of range"):
        span_mask(frames, prob=prob, length_frames=length, rng=np.random.default_rng(0))
