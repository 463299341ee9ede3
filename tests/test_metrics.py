"""Scores against scikit-learn, bootstrap intervals against theory, codebooks against fairseq."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    mutual_info_score,
    recall_score,
)
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix

from gmp_atl_dist import metrics

BOOTSTRAP = {"samples": 1000, "confidence": 0.95, "seed": 3}


@st.composite
def labelled(draw: st.DrawFn) -> tuple[int, list[int], list[int]]:
    """A number of classes, the truth, and predictions; classes may be absent from either."""
    num_classes = draw(st.integers(1, 6))
    pair = st.tuples(st.integers(0, num_classes - 1), st.integers(0, num_classes - 1))
    pairs = draw(st.lists(pair, min_size=1, max_size=60))
    return num_classes, [t for t, _ in pairs], [p for _, p in pairs]


@pytest.mark.filterwarnings("ignore:A single label:UserWarning")
@settings(max_examples=150, deadline=None)
@given(labelled())
def test_scores_are_scikit_learns_with_pinned_labels(case: tuple[int, list[int], list[int]]):
    num_classes, true, predicted = case
    pinned = {"labels": list(range(num_classes)), "zero_division": 0}

    confusion = metrics.confusion_matrix(true, predicted, num_classes)
    scores = metrics.scores_from_confusion(confusion)

    assert confusion.dtype == np.int64
    np.testing.assert_array_equal(
        confusion, sklearn_confusion_matrix(true, predicted, labels=pinned["labels"])
    )
    assert scores.war == pytest.approx(accuracy_score(true, predicted))
    assert scores.uar == pytest.approx(recall_score(true, predicted, average="macro", **pinned))
    for label, recall in enumerate(scores.recalls):
        assert recall == pytest.approx(
            recall_score(true, predicted, average="macro", **{**pinned, "labels": [label]})
        )
    assert scores.macro_f1 == pytest.approx(f1_score(true, predicted, average="macro", **pinned))
    assert scores.weighted_f1 == pytest.approx(
        f1_score(true, predicted, average="weighted", **pinned)
    )
    assert scores.num_utterances == sum(scores.support) == len(true)
    assert set(scores.absent_classes) == set(range(num_classes)) - set(true)


def test_a_class_without_test_utterances_counts_as_zero_and_is_named():
    true, predicted = [0, 0, 1, 1], [0, 0, 1, 1]

    scores = metrics.scores_from_confusion(metrics.confusion_matrix(true, predicted, 3))

    assert balanced_accuracy_score(true, predicted) == 1.0  # the trap
    assert scores.uar == pytest.approx(2 / 3)
    assert scores.absent_classes == (2,)


def test_perfect_predictions_score_one_in_every_resample():
    true = [0] * 40 + [1] * 3 + [2]

    interval = metrics.bootstrap_interval(true, true, 3, **BOOTSTRAP)

    # The single utterance of class 2 is missed by 37 % of the resamples.
    assert interval.war == interval.uar == (1.0, 1.0)


def test_a_constant_prediction_has_chance_uar():
    true = [0] * 70 + [1] * 20 + [2] * 10

    scores = metrics.scores_from_confusion(metrics.confusion_matrix(true, [0] * 100, 3))
    interval = metrics.bootstrap_interval(true, [0] * 100, 3, **BOOTSTRAP)

    assert (scores.war, scores.uar) == (pytest.approx(0.7), pytest.approx(1 / 3))
    assert interval.uar == pytest.approx((1 / 3, 1 / 3))
    assert interval.war[0] < 0.7 < interval.war[1]


def test_intervals_follow_the_seed_and_not_the_order_of_utterances():
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(0, 4, 300), rng.integers(0, 4, 300)
    order = rng.permutation(300)

    first = metrics.bootstrap_interval(true, predicted, 4, **BOOTSTRAP)

    assert metrics.bootstrap_interval(true, predicted, 4, **BOOTSTRAP) == first
    assert metrics.bootstrap_interval(true[order], predicted[order], 4, **BOOTSTRAP) == first
    assert metrics.bootstrap_interval(true, predicted, 4, **{**BOOTSTRAP, "seed": 4}) != first


def test_intervals_are_the_same_whatever_fits_into_memory(monkeypatch: pytest.MonkeyPatch):
    true, predicted = [0, 1, 1, 0, 1, 0, 1] * 9, [0, 1, 0, 0, 1, 1, 1] * 9
    whole = metrics.bootstrap_interval(true, predicted, 2, **BOOTSTRAP)

    monkeypatch.setattr(metrics, "_CELLS_AT_ONCE", 4 * 7)

    assert metrics.bootstrap_interval(true, predicted, 2, **BOOTSTRAP) == whole


def test_intervals_of_accuracy_have_the_binomial_width():
    true, predicted = [0] * 1000, [0] * 600 + [1] * 400

    low, high = metrics.bootstrap_interval(true, predicted, 2, **BOOTSTRAP).war

    half = 1.96 * np.sqrt(0.6 * 0.4 / 1000)
    assert (low, high) == pytest.approx((0.6 - half, 0.6 + half), abs=0.006)


def test_intervals_cover_the_true_value_about_as_often_as_they_say():
    rng = np.random.default_rng(1)
    recalls = np.array([0.9, 0.6, 0.5])
    covered = 0
    for _ in range(200):
        true = rng.choice(3, size=300, p=[0.5, 0.3, 0.2])
        predicted = np.where(rng.random(300) < recalls[true], true, (true + 1) % 3)
        low, high = metrics.bootstrap_interval(
            true, predicted, 3, samples=300, confidence=0.9, seed=7
        ).uar
        covered += low <= recalls.mean() <= high

    assert 0.83 <= covered / 200 <= 0.97


def test_resampling_speakers_is_wider_where_speakers_differ():
    groups = np.repeat([f"s{i}" for i in range(10)], 50)
    true = np.tile([0, 1], 250)
    wrong = np.repeat(np.arange(10) % 2 == 0, 50)
    predicted = np.where(wrong, 1 - true, true)

    alone = metrics.bootstrap_interval(true, predicted, 2, **BOOTSTRAP).uar
    grouped = metrics.bootstrap_interval_by_group(true, predicted, list(groups), 2, **BOOTSTRAP)
    again = metrics.bootstrap_interval_by_group(
        true[::-1], predicted[::-1], list(groups[::-1]), 2, **BOOTSTRAP
    )

    assert grouped.uar[1] - grouped.uar[0] > 3 * (alone[1] - alone[0])
    assert grouped.uar[0] <= 0.5 <= grouped.uar[1]
    assert again == grouped


def test_small_integer_types_do_not_overflow():
    true = np.full(30, 19, dtype=np.int8)

    counts = metrics.confusion_matrix(true, true, 20)
    interval = metrics.bootstrap_interval_by_group(
        true, true, [f"s{i}" for i in range(30)], 20, **BOOTSTRAP
    )

    assert counts[19, 19] == 30
    assert interval.uar == pytest.approx((1 / 20, 1 / 20))


@pytest.mark.filterwarnings("ignore:A single label:UserWarning")
@settings(max_examples=80, deadline=None)
@given(labelled(), st.integers(1, 5))
def test_cluster_quality_is_scikit_learns_information(
    case: tuple[int, list[int], list[int]], spare_clusters: int
):
    num_classes, truth, labels = case
    num_clusters = num_classes + spare_clusters
    joint = sklearn_confusion_matrix(truth, labels, labels=range(num_classes))

    quality = metrics.cluster_quality_from_joint(
        metrics.joint_counts(truth, labels, num_classes, num_clusters)
    )

    entropy = mutual_info_score(truth, truth)
    expected = mutual_info_score(truth, labels) / entropy if len(set(truth)) > 1 else 0.0
    assert quality.pnmi == pytest.approx(expected, abs=1e-9)
    assert quality.purity == pytest.approx(joint.max(axis=0).sum() / len(truth))
    assert quality.cluster_purity == pytest.approx(joint.max(axis=1).sum() / len(truth))
    assert quality.used_clusters == len(set(labels))
    assert quality.perplexity == pytest.approx(np.exp(mutual_info_score(labels, labels)))


def test_cluster_quality_of_summed_counts_is_that_of_all_frames():
    rng = np.random.default_rng(5)
    truth, labels = rng.integers(0, 4, 500), rng.integers(0, 50, 500)
    parts = [metrics.joint_counts(truth[i::3], labels[i::3], 4, 50) for i in range(3)]

    summed = metrics.cluster_quality_from_joint(sum(parts))

    whole = metrics.cluster_quality_from_joint(metrics.joint_counts(truth, labels, 4, 50))
    assert summed == whole


def test_label_usage_finds_dead_clusters():
    even = metrics.label_usage([5, 5, 5, 5])
    uneven = metrics.label_usage([9, 0, 1, 0])

    assert (even.used, even.empty, even.top_share) == (4, 0, 0.25)
    assert even.perplexity == pytest.approx(4)
    assert (uneven.k, uneven.used, uneven.empty, uneven.top_share) == (4, 2, 2, 0.9)
    assert 1 < uneven.perplexity < 2


def test_spread_has_no_deviation_of_one_fold():
    assert metrics.spread([0.5]) == metrics.Spread(mean=0.5, std=None, n=1)
    two = metrics.spread([0.4, 0.6])
    assert (two.mean, two.std) == (pytest.approx(0.5), pytest.approx(np.std([0.4, 0.6], ddof=1)))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: metrics.confusion_matrix([0, 4], [0, 1], 4), r"row indices \[4\]"),
        (lambda: metrics.confusion_matrix([0, 1], [0, -1], 4), r"column indices \[-1\]"),
        (lambda: metrics.confusion_matrix([0, 1], [0], 4), "2 row and 1 column"),
        (lambda: metrics.confusion_matrix([0.5], [0], 4), "integers"),
        (lambda: metrics.scores_from_confusion([[0, 0], [0, 0]]), "not all 0"),
        (lambda: metrics.scores_from_confusion([[1, 2, 3], [4, 5, 6]]), "square"),
        (lambda: metrics.scores_from_confusion([[0.5, 0.5], [0, 1]]), "integers"),
        (lambda: metrics.label_usage([3, -1]), "0 or more"),
        (lambda: metrics.label_usage([[3, 1]]), "one axis"),
        (lambda: metrics.cluster_quality_from_joint([3, 1]), "two axes"),
        (lambda: metrics.spread([]), "no value"),
        (lambda: metrics.bootstrap_interval([], [], 2, **BOOTSTRAP), "at least one item"),
        (lambda: metrics.bootstrap_interval([0], [0], 2, **{**BOOTSTRAP, "samples": 0}), "sample"),
        (
            lambda: metrics.bootstrap_interval([0], [0], 2, **{**BOOTSTRAP, "confidence": 1.0}),
            "between 0 and 1",
        ),
        (
            lambda: metrics.bootstrap_interval_by_group([0, 0], [0, 0], ["a"] * 2, 2, **BOOTSTRAP),
            "two or more",
        ),
        (
            lambda: metrics.bootstrap_interval_by_group([0, 0], [0, 0], ["a"], 2, **BOOTSTRAP),
            "1 group names for 2",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused(call, says: str):
    with pytest.raises(ValueError, match=says):
        call()
