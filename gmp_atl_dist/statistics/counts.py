"""Scores from counts per resampled unit, for many resamples at once.

Every score depends on three counts of each class only: utterances (``support``), right predictions
(``hits``) and predictions (``guesses``). A resample of units is a weight for each unit, so all resamples
are one matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gmp_atl_dist.statistics.arms import Arm, Floats, Indices, SeedPredictions, Truth

SCORES = ("uar", "war", "f1")
"""Mean recall of the classes, accuracy, and macro F1; the columns of every array of scores."""


class Counts(NamedTuple):
    """Each (units, classes)."""

    support: Floats
    hits: Floats
    guesses: Floats


@dataclass(frozen=True)
class Units:
    """What is resampled: a number for each utterance, and how many units there are."""

    of_utterance: Indices
    number: int


def units_of(groups: Sequence[str] | None, num_utterances: int) -> Units:
    """Groups by name, sorted, or single utterances in their order (``groups`` is None)."""
    if groups is None:
        return Units(np.arange(num_utterances), num_utterances)
    names, members = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    return Units(members.astype(np.int64), len(names))


def counts_of(truth: Truth, seed: SeedPredictions, units: Units) -> Counts:
    """The counts of each unit."""
    right = truth.true == seed.predicted
    k = truth.num_classes
    return Counts(
        support=_count(units, truth.true, k),
        hits=_count(Units(units.of_utterance[right], units.number), truth.true[right], k),
        guesses=_count(units, seed.predicted, k),
    )


def _count(units: Units, classes: Indices, num_classes: int) -> Floats:
    cells = units.of_utterance * num_classes + classes
    counts = np.bincount(cells, minlength=units.number * num_classes)
    return counts.reshape(units.number, num_classes).astype(np.float64)


def scores_of(counts: Counts, weights: Floats | None = None) -> Floats:
    """(resamples, 3) scores in the order of ``SCORES``; one row for the observed data without weights.

    A class without an utterance has recall and F1 0. A class that only a resample misses has its observed
    recall and F1 there, as in :func:`gmp_atl_dist.metrics.bootstrap_interval`: a 0 would count chance as
    errors.

    Args:
        weights: (resamples, units), how often each unit was drawn.
    """
    observed = [part.sum(axis=0, keepdims=True) for part in counts]
    support, hits, guesses = observed if weights is None else [weights @ part for part in counts]
    recalls, f1 = _ratio(hits, support), _ratio(2 * hits, support + guesses)
    if weights is not None:
        present = support > 0
        recalls = np.where(present, recalls, _ratio(observed[1], observed[0]))
        f1 = np.where(present, f1, _ratio(2 * observed[1], observed[0] + observed[2]))
    war = hits.sum(axis=1) / support.sum(axis=1)
    return np.column_stack([recalls.mean(axis=1), war, f1.mean(axis=1)])


def uar_without_absent(uar: float, truth: Truth) -> float:
    """The same UAR with classes left out that have no test utterance, in place of recall 0."""
    return uar * truth.num_classes / (truth.num_classes - len(truth.absent_classes))


def seed_scores(truth: Truth, arm: Arm) -> Floats:
    """(seeds, 3) observed scores of each seed."""
    units = Units(np.zeros(len(truth.true), dtype=np.int64), 1)
    return np.vstack([scores_of(counts_of(truth, seed, units)) for seed in arm.seeds])


def _ratio(part: Floats, whole: Floats) -> Floats:
    """``part / whole``, and 0 where ``whole`` is 0."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
