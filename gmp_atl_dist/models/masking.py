"""Which frames to hide for masked prediction.

Shapes: T frames, or features where features are masked.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def span_mask(
    num_frames: int,
    *,
    prob: float,
    length_frames: int,
    rng: np.random.Generator,
    fewest: int = 1,
) -> npt.NDArray[np.bool_]:
    """Mask of shape (T,): True on frames to hide, in spans that may overlap.

    HuBERT, section 4.2, in the manner of fairseq's ``compute_mask_indices``: ``prob * T / length``
    spans, rounded up or down at random so that the mean is exact, each with a different start.
    ``prob`` is therefore an upper bound of the share of hidden frames (0.8 hides about 0.5).

    Differences from fairseq: a mask depends on its own clip and ``rng`` only, not on the batch. Spans are
    shortened for short clips, on which fairseq fails. At least ``fewest`` spans are drawn: with 1, every
    clip contributes to the loss of masked prediction; with 0, the mean of the number of spans is exact,
    for SpecAugment. One frame stays visible in a clip of more than one frame, because the model cannot
    predict a clip of which it sees nothing.

    Args:
        num_frames: T of this clip.
        prob: 0 hides nothing.
        length_frames: of a span.
        rng: the source of randomness; the same state yields the same mask.
        fewest: spans, where ``prob`` is not 0.

    Raises:
        ValueError: an argument is out of range.
    """
    if num_frames < 0 or not 0 <= prob <= 1 or length_frames < 1:
        raise ValueError(f"span_mask({num_frames=}, {prob=}, {length_frames=}) is out of range")
    mask_T = np.zeros(num_frames, dtype=np.bool_)
    if num_frames == 0 or prob == 0:
        return mask_T
    length = max(1, min(length_frames, num_frames - 1))
    starts = num_frames - length + 1
    wanted = int(prob * num_frames / length_frames + rng.random())
    for start in rng.choice(starts, size=min(max(wanted, fewest), starts), replace=False):
        mask_T[start : start + length] = True
    if num_frames > 1 and mask_T.all():
        mask_T[rng.integers(num_frames)] = False
    return mask_T
