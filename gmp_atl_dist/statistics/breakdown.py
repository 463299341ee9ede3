"""Scores of parts of the test set: each fold, class, gender, speaker and corpus, over the seeds of an arm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from gmp_atl_dist import metrics
from gmp_atl_dist.statistics.arms import Arm, SeedPredictions, Truth
from gmp_atl_dist.statistics.summary import Summary, summary

By: TypeAlias = Literal["fold", "class", "gender", "speaker", "corpus"]
BREAKDOWNS: tuple[By, ...] = get_args(By)


@dataclass(frozen=True)
class Part:
    """The scores of one arm on a part of the test set, over its seeds.

    Attributes:
        uar_zero: UAR where a class without an utterance in this part has recall 0.
        uar_left_out: UAR over the ``num_classes`` classes that have an utterance. Both are equal if all have.
        war: accuracy. For a class, all three are its recall.
        num_utterances: of the part; that of the first seed where the seeds' folds differ.
    """

    name: str
    uar_zero: Summary
    uar_left_out: Summary
    war: Summary
    num_classes: int
    num_utterances: int


@dataclass(frozen=True)
class FoldMeans:
    """The mean UAR of the folds, over seeds, under each convention for a class that a fold lacks.

    The two are never mixed: each mean follows one convention in all of its folds. ``incomplete`` names the
    folds that lack a class; without any, both means are equal.
    """

    zero: Summary
    left_out: Summary
    incomplete: tuple[str, ...]


def parts_of(truth: Truth, arm: Arm, by: By) -> tuple[Part, ...]:
    """The scores of each part, by name (classes in their order)."""
    if by == "class":
        return _classes(truth, arm)
    names = sorted({name for seed in arm.seeds for name in _keys(truth, seed, by)})
    # A run of one corpus has no name for it, which is no part.
    return tuple(_part(truth, arm, by, name) for name in names if name)


def fold_means(truth: Truth, arm: Arm) -> FoldMeans:
    """The mean over folds of each seed, under both conventions."""
    zero: list[float] = []
    left_out: list[float] = []
    incomplete: set[str] = set()
    for seed in arm.seeds:
        names = sorted(set(seed.folds))
        found = [_scores(truth, seed, np.array(seed.folds) == name) for name in names]
        zero.append(float(np.mean([scores.uar for scores in found])))
        left_out.append(float(np.mean([scores.uar_of_present_classes for scores in found])))
        pairs = zip(names, found, strict=True)
        incomplete |= {name for name, scores in pairs if scores.absent_classes}
    return FoldMeans(summary(zero), summary(left_out), tuple(sorted(incomplete)))


def _keys(truth: Truth, seed: SeedPredictions, by: By) -> Sequence[str]:
    columns = {"gender": truth.genders, "speaker": truth.speakers, "corpus": truth.corpora}
    return seed.folds if by == "fold" else columns[by]


def _part(truth: Truth, arm: Arm, by: By, name: str) -> Part:
    insides = [np.array(_keys(truth, seed, by)) == name for seed in arm.seeds]
    # Seeds of another split may not have this fold.
    found = [
        _scores(truth, seed, inside)
        for seed, inside in zip(arm.seeds, insides, strict=True)
        if inside.any()
    ]
    return Part(
        name=name,
        uar_zero=summary([scores.uar for scores in found]),
        uar_left_out=summary([scores.uar_of_present_classes for scores in found]),
        war=summary([scores.war for scores in found]),
        num_classes=truth.num_classes - len(found[0].absent_classes),
        num_utterances=found[0].num_utterances,
    )


def _scores(truth: Truth, seed: SeedPredictions, inside: np.ndarray) -> metrics.Scores:
    counts = metrics.confusion_matrix(truth.true[inside], seed.predicted[inside], truth.num_classes)
    return metrics.scores_from_confusion(counts)


def _classes(truth: Truth, arm: Arm) -> tuple[Part, ...]:
    parts = []
    for i, name in enumerate(truth.classes):
        inside = truth.true == i
        if not inside.any():
            continue
        recall = summary([float((seed.predicted[inside] == i).mean()) for seed in arm.seeds])
        parts.append(Part(name, recall, recall, recall, 1, int(inside.sum())))
    return tuple(parts)
