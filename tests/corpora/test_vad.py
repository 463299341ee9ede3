"""Long recordings cut by energy: bounded, in order, without loss of speech."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmp_atl_dist.corpora.vad import SpeechCut, segment_id
from gmp_atl_dist.errors import CorpusError

CUT = SpeechCut(whole_s=2.0, min_s=0.1, max_s=1.5, below_db=30.0)
RATE = 16_000


def noise(seconds: float, level: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, level, int(seconds * RATE)).astype(np.int16)


@given(
    lengths_s=st.lists(st.floats(0.05, 4.0), min_size=1, max_size=8),
    pauses_s=st.lists(st.floats(0.0, 2.0), min_size=9, max_size=9),
    seed=st.integers(0, 1000),
)
def test_utterances_are_bounded_in_order_and_hold_all_speech(
    lengths_s: list[float], pauses_s: list[float], seed: int
) -> None:
    pieces = [noise(pauses_s[0] + 2.0, 2)]
    for length_s, pause_s in zip(lengths_s, pauses_s[1:], strict=False):
        pieces += [noise(length_s, 4000, seed), noise(pause_s, 2)]
    samples = np.concatenate(pieces)
    try:
        spans = CUT.spans(samples)
    except CorpusError:
        return
    assert spans == CUT.spans(samples.copy())
    covered = np.zeros(len(samples), dtype=bool)
    before = 0
    for start, end in spans:
        assert before <= start < end <= len(samples)
        assert CUT.min_s * RATE <= end - start <= CUT.max_s * RATE
        covered[start:end] = True
        before = end
    # What is lost is shorter than min_s: a rest behind a cut, or the last frame.
    lost = np.flatnonzero((np.abs(samples) > 2000) & ~covered)
    assert len(lost) <= len(lengths_s) * CUT.min_s * RATE + 320


def test_a_long_utterance_is_cut_where_it_is_quietest() -> None:
    samples = noise(4.0, 4000)
    samples[int(1.2 * RATE) : int(1.3 * RATE)] //= 8
    first = CUT.spans(samples)[0]
    assert 1.2 * RATE <= first[1] <= 1.3 * RATE


def test_a_short_recording_stays_whole_with_its_silence() -> None:
    samples = np.concatenate([np.zeros(RATE // 2, np.int16), noise(1.0, 4000)])
    assert CUT.spans(samples) == [(0, len(samples))]


def test_silence_is_no_utterance() -> None:
    with pytest.raises(CorpusError, match="nothing but digital silence"):
        CUT.spans(np.zeros(3 * RATE, np.int16))


def test_ids_sort_by_time() -> None:
    starts = [0, 9 * RATE, 10 * RATE, 12_340 * RATE]
    ids = [segment_id("a/b.mp3", s, s + RATE) for s in starts]
    assert ids == sorted(ids)
    assert ids[2] == "a/b.mp3#00010.000-00011.000"
