"""Comparisons of arms against scikit-learn, statsmodels and loops in float64."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, recall_score

from gmp_atl_dist import metrics
from gmp_atl_dist.statistics.arms import (
    Arm,
    Cell,
    NotComparableError,
    PredictedUtterance,
    Truth,
    arms_of,
)
from gmp_atl_dist.statistics.bootstrap import (
    Resampling,
    bootstrap_p,
    interval,
    resampled_scores,
    unit_of,
)
from gmp_atl_dist.statistics.breakdown import fold_means, parts_of
from gmp_atl_dist.statistics.comparing import Comparison, compare_arms, pairs_of_seeds

CLASSES = ("angry", "happy", "sad")
FEW = Resampling(samples=200)


def cells(
    arms: dict[str, Sequence[float]],
    *,
    speakers: int = 8,
    utterances: int = 60,
    classes: Sequence[str] = CLASSES,
    spoken: Sequence[str] | None = None,
) -> list[Cell]:
    """Arms with the accuracy of each of their seeds, in two folds, from seeded noise."""
    rng = np.random.default_rng(5)
    people = [f"s{i % speakers}" for i in range(utterances)]
    true = [str(name) for name in rng.choice(list(spoken or classes), utterances)]
    found = []
    for arm, accuracies in arms.items():
        for seed, accuracy in enumerate(accuracies):
            guesses = [str(name) for name in rng.choice(list(classes), utterances)]
            rows = [
                PredictedUtterance(
                    f"u{i:03d}",
                    people[i],
                    "female" if int(people[i][1:]) % 2 else "male",
                    true[i],
                    true[i] if rng.random() < accuracy else guesses[i],
                )
                for i in range(utterances)
            ]
            for fold in (0, 1):
                part = [row for row in rows if int(row.speaker[1:]) % 2 == fold]
                found.append(Cell(arm, str(seed), f"fold{fold + 1}", part))
    return found


def compared(found: Sequence[Cell], how: Resampling = FEW, baseline: str = "a") -> Comparison:
    truth, arms = arms_of(found, CLASSES)
    return compare_arms(truth, arms, baseline, how)


def slow_scores(true: Sequence[int], predicted: Sequence[int], observed: dict[int, tuple]) -> list:
    """UAR, WAR, F1 by plain loops; ``observed`` stands in for the classes that a resample misses."""
    recalls, f1s = [], []
    for k in range(len(CLASSES)):
        support = sum(t == k for t in true)
        hits = sum(t == p == k for t, p in zip(true, predicted, strict=True))
        guesses = sum(p == k for p in predicted)
        if support == 0 and observed:
            recalls.append(observed[k][0])
            f1s.append(observed[k][1])
        else:
            recalls.append(hits / support if support else 0.0)
            f1s.append(2 * hits / (support + guesses) if support + guesses else 0.0)
    right = sum(t == p for t, p in zip(true, predicted, strict=True))
    n = len(CLASSES)
    return [sum(recalls) / n, right / len(true), sum(f1s) / n]


def slow_by_class(true: Sequence[int], predicted: Sequence[int]) -> dict[int, tuple]:
    found = {}
    for k in range(len(CLASSES)):
        support, guesses = sum(t == k for t in true), sum(p == k for p in predicted)
        hits = sum(t == p == k for t, p in zip(true, predicted, strict=True))
        found[k] = (
            hits / support if support else 0.0,
            2 * hits / (support + guesses) if support + guesses else 0.0,
        )
    return found


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true:UserWarning")
@pytest.mark.parametrize("spoken", [CLASSES, CLASSES[:2]], ids=["all classes", "one is absent"])
def test_scores_are_scikit_learns_and_averaged_over_seeds(spoken: Sequence[str]) -> None:
    truth, arms = arms_of(cells({"a": [0.7, 0.5, 0.6], "b": [0.4]}, spoken=spoken), CLASSES)

    found = compare_arms(truth, arms, "a", FEW)

    pinned = {"labels": [0, 1, 2], "average": "macro", "zero_division": 0}
    for arm, scored in zip(arms, found.arms, strict=True):
        per_seed = [
            (
                recall_score(truth.true, s.predicted, **pinned),
                accuracy_score(truth.true, s.predicted),
                f1_score(truth.true, s.predicted, **pinned),
            )
            for s in arm.seeds
        ]
        for j, name in enumerate(("uar", "war", "f1")):
            values = [scores[j] for scores in per_seed]
            over_seeds = scored.scores[name].over_seeds
            assert over_seeds.mean == pytest.approx(np.mean(values), abs=1e-12)
            assert (over_seeds.lowest, over_seeds.highest) == pytest.approx(
                (min(values), max(values)), abs=1e-12
            )
            if len(values) == 1:
                assert over_seeds.sd is None
            else:
                assert over_seeds.sd == pytest.approx(np.std(values, ddof=1), abs=1e-12)
        left_out = [balanced_accuracy_score(truth.true, s.predicted) for s in arm.seeds]
        assert scored.uar_left_out == pytest.approx(np.mean(left_out), abs=1e-12)
    assert found.absent_classes == truth.absent_classes == CLASSES[len(spoken) :]
    assert any("left out" in sentence for sentence in found.sentences) == (len(spoken) < 3)


@pytest.mark.parametrize("speakers", [8, 2, 1], ids=["speakers", "two speakers", "one speaker"])
def test_resampled_scores_are_those_of_a_loop(speakers: int) -> None:
    truth, arms = arms_of(
        cells({"a": [0.7, 0.4], "b": [0.6]}, speakers=speakers, utterances=24), CLASSES
    )
    how = Resampling(samples=40, seed=3)

    found = resampled_scores(truth, arms, how)

    rng = np.random.default_rng(3)
    names = sorted(set(truth.speakers))
    true = truth.true.tolist()
    for b in range(how.samples):
        if speakers >= 5:
            times = rng.multinomial(len(names), [1 / len(names)] * len(names)).tolist()
            drawn = [
                i
                for name, n in zip(names, times, strict=True)
                for i in [i for i, s in enumerate(truth.speakers) if s == name] * n
            ]
        else:
            drawn = rng.integers(0, len(true), size=len(true)).tolist()
        for arm, scores in zip(arms, found[:, b], strict=True):
            expected = []
            for seed in arm.seeds:
                predicted = seed.predicted.tolist()
                observed = slow_by_class(true, predicted)
                expected.append(
                    slow_scores([true[i] for i in drawn], [predicted[i] for i in drawn], observed)
                )
            assert scores == pytest.approx(np.mean(expected, axis=0), abs=1e-12)
    assert unit_of(truth.speakers) == ("speaker" if speakers >= 5 else "utterance")


def test_the_interval_of_one_seed_is_that_of_the_report() -> None:
    truth, arms = arms_of(cells({"a": [0.7], "b": [0.6]}), CLASSES)
    how = Resampling(samples=500, confidence=0.9, seed=7)

    found = compare_arms(truth, arms, "a", how)

    for arm, scored in zip(arms, found.arms, strict=True):
        report = metrics.bootstrap_interval_by_group(
            truth.true,
            arm.seeds[0].predicted,
            truth.speakers,
            3,
            samples=500,
            confidence=0.9,
            seed=7,
        )
        assert scored.scores["uar"].interval == pytest.approx(report.uar, abs=1e-12)
        assert scored.scores["war"].interval == pytest.approx(report.war, abs=1e-12)


def test_a_difference_is_paired() -> None:
    """Two arms that err on the same speakers: the scores vary with the speakers, the difference does not."""
    rows = [
        PredictedUtterance(f"u{s}{k}{i}", f"s{s}", "male", CLASSES[k], CLASSES[k if s % 2 else 0])
        for s in range(10)
        for k in range(3)
        for i in range(2)
    ]
    better = [
        row._replace(predicted=row.emotion) if row.utterance_id[-1] == "0" else row for row in rows
    ]
    easy = [row for row in better if row.speaker != "s0"]
    hard = [row for row in better if row.speaker == "s0"]
    found = compared([Cell("a", "0", "f", rows), Cell("b", "0", "f", [*easy, *hard])])

    low, high = found.arms[0].scores["uar"].interval
    difference = found.arms[1].difference
    assert difference is not None
    uar = difference.scores["uar"]
    assert uar.value == pytest.approx(1 / 6)
    assert uar.interval[0] > 0
    assert uar.interval[1] - uar.interval[0] < (high - low)
    assert uar.p < 0.05
    # 5 of 10 speakers, 2 classes that are wrong for them, 1 of 2 utterances of each is mended.
    assert (difference.mcnemar.only_baseline, difference.mcnemar.only_arm) == (0, 10)
    assert difference.mcnemar.cohens_g == 0.5
    assert difference.mcnemar.p == pytest.approx(2 * 0.5**10)
    assert difference.mcnemar.exact


@pytest.mark.parametrize("seeds", [1, 3])
def test_equal_arms_differ_by_nothing(seeds: int) -> None:
    one = cells({"a": [0.6] * seeds})

    found = compared([*one, *(replace(cell, arm="b") for cell in one)])

    difference = found.arms[1].difference
    assert difference is not None
    for score in difference.scores.values():
        assert (score.value, score.interval, score.p) == (0.0, (0.0, 0.0), 1.0)
    assert (difference.p_holm, difference.mcnemar.p, difference.mcnemar_p_holm) == (1.0, 1.0, 1.0)
    assert difference.mcnemar.cohens_g is None
    assert difference.mcnemar.num_pairs == seeds


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(0.2, 0.9), min_size=1, max_size=3),
    st.lists(st.floats(0.2, 0.9), min_size=1, max_size=3),
    st.sampled_from([2, 8]),
    st.randoms(use_true_random=False),
)
def test_order_changes_nothing_and_swapped_arms_change_the_sign(
    first: list[float], second: list[float], speakers: int, shuffle: random.Random
) -> None:
    found = cells({"a": first, "b": second}, speakers=speakers, utterances=30)
    mixed = [
        replace(c, predictions=shuffle.sample(c.predictions, len(c.predictions))) for c in found
    ]
    a, b = compared(found, baseline="a"), compared(found, baseline="b")

    assert compared(mixed).arms == a.arms
    there, back = a.arms[1].difference, b.arms[0].difference
    assert there is not None
    assert back is not None
    for name, score in there.scores.items():
        other = back.scores[name]
        assert other.value == pytest.approx(-score.value, abs=1e-12)
        assert other.interval == pytest.approx((-score.interval[1], -score.interval[0]), abs=1e-12)
        assert other.p == score.p
        assert 0 < score.p <= 1
    assert there.mcnemar.p == pytest.approx(back.mcnemar.p)
    assert (there.mcnemar.cohens_g or 0) == pytest.approx(-(back.mcnemar.cohens_g or 0))


def test_bootstrap_p_is_where_the_interval_reaches_zero() -> None:
    rng = np.random.default_rng(0)
    differences = rng.normal(0.02, 0.01, 9_999)

    p = bootstrap_p(differences)

    low, _ = interval(differences, 1 - p)
    assert abs(low) < 1e-4
    assert bootstrap_p(-differences) == p
    # Ties at 0 count on both sides.
    assert bootstrap_p(np.zeros(99)) == 1.0
    assert bootstrap_p(np.array([0.0] * 30 + [0.1] * 70)) == pytest.approx(2 * 31 / 101)
    assert bootstrap_p(np.ones(9_999)) == 2 / 10_000


def test_seeds_are_paired_by_name_and_otherwise_each_with_each() -> None:
    _, (a, b, c) = arms_of(cells({"a": [0.5, 0.6], "b": [0.5, 0.6], "c": [0.5, 0.6, 0.7]}), CLASSES)

    assert [(x.seed, y.seed) for x, y in pairs_of_seeds(a, b)] == [("0", "0"), ("1", "1")]
    assert len(pairs_of_seeds(a, c)) == 6


def test_parts_of_the_test_set_follow_both_conventions() -> None:
    found = cells({"a": [0.7, 0.5], "b": [0.4, 0.4]})
    # The second fold has no sad utterance.
    changed = [
        cell
        if cell.fold == "fold1"
        else replace(cell, predictions=[r for r in cell.predictions if r.emotion != "sad"])
        for cell in found
    ]
    truth, (arm, _) = arms_of(changed, CLASSES)

    one, two = parts_of(truth, arm, "fold")
    means = fold_means(truth, arm)

    assert one.uar_zero == one.uar_left_out
    assert two.uar_zero.mean == pytest.approx(two.uar_left_out.mean * 2 / 3)
    assert (one.num_classes, two.num_classes) == (3, 2)
    assert means.incomplete == ("fold2",)
    assert means.zero.mean == pytest.approx((one.uar_zero.mean + two.uar_zero.mean) / 2)
    assert means.left_out.mean == pytest.approx((one.uar_left_out.mean + two.uar_left_out.mean) / 2)
    assert means.zero.n == 2  # seeds
    speakers = parts_of(truth, arm, "speaker")
    assert [part.name for part in speakers] == [f"s{i}" for i in range(8)]
    assert sum(part.num_utterances for part in speakers) == len(truth.true)
    assert [part.name for part in parts_of(truth, arm, "gender")] == ["female", "male"]
    assert parts_of(truth, arm, "corpus") == ()
    for k, part in enumerate(parts_of(truth, arm, "class")):
        inside = truth.true == k
        recalls = [np.mean(s.predicted[inside] == k) for s in arm.seeds]
        assert part.war.mean == pytest.approx(np.mean(recalls))


def test_other_test_sets_are_refused_with_numbers_and_names() -> None:
    first = cells({"a": [0.5]})
    fewer = [replace(c, arm="b", predictions=c.predictions[2:]) for c in first]
    with pytest.raises(
        NotComparableError, match=r"a \(60 utterances\) and b \(56 .*\n.*only a tests 4 "
    ) as e:
        arms_of([*first, *fewer], CLASSES)
    assert "u000, u001, u002, u003" in str(e.value)

    def changed(row: PredictedUtterance) -> PredictedUtterance:
        return row._replace(emotion="sad") if row.emotion == "happy" else row

    other = [replace(c, arm="b", predictions=list(map(changed, c.predictions))) for c in first]
    with pytest.raises(NotComparableError, match=r"with another emotion: u\d+ \(happy and sad\)"):
        arms_of([*first, *other], CLASSES)
    moved = [
        replace(c, arm="b", predictions=[r._replace(speaker="x") for r in c.predictions])
        for c in first
    ]
    with pytest.raises(NotComparableError, match="60 utterances with another speaker"):
        arms_of([*first, *moved], CLASSES)
    with pytest.raises(NotComparableError, match=r"a \(seed 0\) .* and a \(seed 1\)"):
        arms_of([*first, *(replace(c, arm="a", seed="1") for c in fewer)], CLASSES)


def test_what_is_no_comparison_is_refused() -> None:
    first = cells({"a": [0.5]})
    with pytest.raises(ValueError, match="given twice"):
        arms_of([*first, *first], CLASSES)
    with pytest.raises(ValueError, match="no prediction"):
        arms_of([], CLASSES)
    with pytest.raises(ValueError, match="sad not in the class list"):
        arms_of(first, CLASSES[:2])
    truth, arms = arms_of(first, CLASSES)
    with pytest.raises(ValueError, match="two or more arms"):
        compare_arms(truth, arms, "a")
    with pytest.raises(ValueError, match="samples = 0"):
        Resampling(samples=0)


def test_an_utterance_of_two_folds_is_told_apart_by_fold() -> None:
    rows = cells({"a": [0.5]})[0].predictions
    twice = [Cell(arm, "0", fold, rows) for arm in "ab" for fold in ("f1", "f2")]

    truth, arms = arms_of(twice, CLASSES)

    assert len(truth.true) == 2 * len(rows)
    assert isinstance(truth, Truth)
    assert all(isinstance(arm, Arm) for arm in arms)
    with pytest.raises(NotComparableError, match=r"only a tests 30 utterances: u\d+ of f2"):
        arms_of(twice[:3], CLASSES)
