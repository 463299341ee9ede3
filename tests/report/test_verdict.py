"""The verdict: what scores show, and what they do not."""

from __future__ import annotations

import numpy as np
import pytest

from gmp_atl_dist.report.outcome import Outcome
from gmp_atl_dist.report.verdict import Verdict, verdict_of

CLASSES = ("angry", "happy", "neutral", "sad")


def judged(true: np.ndarray, predicted: np.ndarray, speakers: int = 10) -> Verdict:
    outcome = Outcome.of(
        true,
        predicted,
        len(CLASSES),
        speakers=[f"s{i % speakers}" for i in range(len(true))],
        samples=300,
        confidence=0.95,
        seed=0,
    )
    return verdict_of(outcome, CLASSES)


def right(true: np.ndarray, share: float) -> np.ndarray:
    """Predictions that are right for about ``share`` of the utterances, and random for the others."""
    rng = np.random.default_rng(3)
    return np.where(rng.random(len(true)) < share, true, rng.integers(0, 4, len(true)))


TRUE = np.arange(400) % 4


def test_a_good_model_is_clearly_above_chance():
    verdict = judged(TRUE, right(TRUE, 0.7))

    assert verdict.level == "clear"
    assert len(verdict.sentences) == 1
    assert "better than chance: the 95 % interval of UAR is 7" in verdict.sentences[0]


def test_a_random_model_is_not_better_than_chance():
    verdict = judged(TRUE, right(TRUE, 0.0))

    assert verdict.level == "none"
    assert "not better than chance" in verdict.sentences[0]
    assert "includes chance (25.0 %)" in verdict.sentences[0]


def test_one_class_for_everything_is_said_first():
    verdict = judged(TRUE, np.ones(400, int))
    text = " ".join(verdict.sentences)

    assert verdict.level == "none"
    assert verdict.sentences[0] == "The model predicts 'happy' for every recording."
    assert "zero width means no information" in text
    assert "not better than chance" in text
    assert "never predicts" not in text, "said by the first sentence"


def test_a_model_below_chance_points_to_the_labels():
    verdict = judged(TRUE, (TRUE + 1) % 4)

    assert verdict.level == "none"
    assert "worse than chance" in verdict.sentences[0]
    assert "labels" in verdict.sentences[0]


@pytest.mark.parametrize(
    ("true", "predicted", "speakers", "says"),
    [
        (TRUE, np.where(TRUE > 1, 2, right(TRUE, 0.9) % 3), 10, "never predicts 'sad'"),
        (TRUE, right(TRUE, 0.7), 2, "fewer than 5 speakers"),
        (TRUE[:40], right(TRUE[:40], 0.9), 10, "only 40 utterances"),
        (np.r_[TRUE % 3, [3]], np.r_[TRUE % 3, [0]], 10, "'sad' with 1 utterance,"),
        (TRUE % 3, TRUE % 3, 10, "no utterance of 'sad'"),
        (TRUE, TRUE, 10, "zero width"),
    ],
)
def test_reservations_are_named(true: np.ndarray, predicted: np.ndarray, speakers: int, says: str):
    verdict = judged(true, predicted, speakers)

    assert verdict.level == "weak"
    assert says in " ".join(verdict.sentences)


def test_what_holds_for_two_of_six_speakers_is_not_clear():
    # Two speakers are always right, four are guessed.
    speaker = np.arange(240) % 6
    true = (np.arange(240) // 6) % 4
    guess = right(true, 0.0)
    outcome = Outcome.of(
        true,
        np.where(speaker < 2, true, guess),
        4,
        speakers=[f"s{i}" for i in speaker],
        samples=500,
        confidence=0.95,
        seed=0,
    )
    assert outcome.speaker_intervals is not None
    verdict = verdict_of(outcome, CLASSES)

    assert outcome.intervals.uar[0] > 0.25
    expected = "weak" if outcome.speaker_intervals.uar[0] <= 0.25 else "clear"
    assert verdict.level == expected
    assert ("not shown for other speakers" in " ".join(verdict.sentences)) == (expected == "weak")


def test_accuracy_of_the_frequent_class_is_no_success():
    true = np.r_[np.zeros(300, int), np.arange(100) % 4]
    verdict = judged(true, right(true, 0.3))

    assert any("not above that of always predicting 'angry'" in s for s in verdict.sentences)
    assert verdict.level != "clear" or "WAR" in verdict.sentences[-1]


def test_a_matrix_of_other_classes_is_refused():
    outcome = Outcome.of([0, 1], [0, 1], 2, speakers=["a", "b"], samples=10, confidence=0.9, seed=0)
    with pytest.raises(ValueError, match="4 classes for a confusion matrix of 2 rows"):
        verdict_of(outcome, CLASSES)
