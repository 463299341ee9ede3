"""The comparison of arms: scores, differences to a baseline, tests and corrections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gmp_atl_dist.metrics import Bounds
from gmp_atl_dist.statistics import wording
from gmp_atl_dist.statistics.arms import Arm, SeedPredictions, Truth
from gmp_atl_dist.statistics.bootstrap import (
    Resampling,
    Unit,
    bootstrap_p,
    interval,
    resampled_scores,
    unit_of,
)
from gmp_atl_dist.statistics.breakdown import BREAKDOWNS, FoldMeans, Part, fold_means, parts_of
from gmp_atl_dist.statistics.calibration import arm_calibration_error
from gmp_atl_dist.statistics.counts import SCORES, seed_scores, uar_without_absent
from gmp_atl_dist.statistics.paired import combined_p, holm, mcnemar
from gmp_atl_dist.statistics.summary import Summary, summary

_DEFAULT = Resampling()


@dataclass(frozen=True)
class Estimate:
    """A score over the seeds of an arm, and the bootstrap interval of its mean."""

    over_seeds: Summary
    interval: Bounds


@dataclass(frozen=True)
class ScoreDifference:
    """A score minus that of the baseline, as a fraction; ``p`` is of the paired bootstrap."""

    value: float
    interval: Bounds
    p: float


@dataclass(frozen=True)
class PairedTest:
    """McNemar's test of an arm against the baseline, over the pairs of their seeds.

    ``only_baseline`` and ``only_arm`` are mean numbers of utterances that only one of them gets right.
    ``cohens_g`` is the mean over pairs; None without a discordant pair. ``exact`` if all tests were.
    """

    only_baseline: float
    only_arm: float
    cohens_g: float | None
    p: float
    exact: bool
    num_pairs: int


@dataclass(frozen=True)
class Difference:
    """An arm against the baseline. The corrected p-values are Holm's, over all arms but the baseline."""

    scores: dict[str, ScoreDifference]
    p_holm: float
    mcnemar: PairedTest
    mcnemar_p_holm: float


@dataclass(frozen=True)
class ComparedArm:
    """An arm of a comparison. ``difference`` is None for the baseline.

    Attributes:
        scores: an estimate for each of ``uar``, ``war`` and ``f1``.
        uar_left_out: mean UAR over the classes that occur; equal to that of ``scores`` if all do.
        calibration_error: None where probabilities are not known.
        parts: scores by fold, class, gender, speaker and corpus.
    """

    name: str
    seeds: tuple[str, ...]
    scores: dict[str, Estimate]
    uar_left_out: float
    fold_means: FoldMeans
    calibration_error: Summary | None
    parts: dict[str, tuple[Part, ...]]
    difference: Difference | None


@dataclass(frozen=True)
class Comparison:
    """A table of arms, and the sentences without which it must not be read."""

    baseline: str
    classes: tuple[str, ...]
    absent_classes: tuple[str, ...]
    num_utterances: int
    num_speakers: int
    unit: Unit
    samples: int
    confidence: float
    seed: int
    arms: tuple[ComparedArm, ...]
    sentences: tuple[str, ...]


def compare_arms(
    truth: Truth, arms: Sequence[Arm], baseline: str, how: Resampling = _DEFAULT
) -> Comparison:
    """Compare every arm with the one called ``baseline``.

    Raises:
        ValueError: there are fewer than two arms, two of one name, or none is called ``baseline``.
    """
    names = [arm.name for arm in arms]
    if len(arms) < 2 or len(set(names)) < len(names) or baseline not in names:
        raise ValueError(
            f"arms {names} and baseline {baseline!r}: give two or more arms with different names, "
            f"and one of them as baseline"
        )
    base = names.index(baseline)
    scores = resampled_scores(truth, arms, how)
    observed = [seed_scores(truth, arm) for arm in arms]
    others = [i for i in range(len(arms)) if i != base]
    differences = {
        i: _score_differences(observed[i], observed[base], scores[i] - scores[base], how)
        for i in others
    }
    tests = {i: _paired_test(truth, arms[base], arms[i]) for i in others}
    corrected = dict(zip(others, holm([differences[i]["uar"].p for i in others]), strict=True))
    corrected_mcnemar = dict(zip(others, holm([tests[i].p for i in others]), strict=True))
    compared = []
    for i, arm in enumerate(arms):
        difference = None
        if i != base:
            difference = Difference(differences[i], corrected[i], tests[i], corrected_mcnemar[i])
        compared.append(_compared(truth, arm, observed[i], scores[i], how, difference))
    return Comparison(
        baseline=baseline,
        classes=truth.classes,
        absent_classes=truth.absent_classes,
        num_utterances=len(truth.true),
        num_speakers=len(set(truth.speakers)),
        unit=unit_of(truth.speakers),
        samples=how.samples,
        confidence=how.confidence,
        seed=how.seed,
        arms=tuple(compared),
        sentences=tuple(wording.comparison(truth, tuple(arms), baseline, how)),
    )


def _compared(
    truth: Truth,
    arm: Arm,
    observed: np.ndarray,
    resampled: np.ndarray,
    how: Resampling,
    difference: Difference | None,
) -> ComparedArm:
    estimates = {
        name: Estimate(summary(observed[:, j]), interval(resampled[:, j], how.confidence))
        for j, name in enumerate(SCORES)
    }
    parts = {by: parts_of(truth, arm, by) for by in BREAKDOWNS}
    return ComparedArm(
        name=arm.name,
        seeds=arm.seed_names,
        scores=estimates,
        uar_left_out=uar_without_absent(estimates["uar"].over_seeds.mean, truth),
        fold_means=fold_means(truth, arm),
        calibration_error=arm_calibration_error(truth, arm),
        parts={by: found for by, found in parts.items() if found},
        difference=difference,
    )


def _score_differences(
    arm: np.ndarray, base: np.ndarray, resampled: np.ndarray, how: Resampling
) -> dict[str, ScoreDifference]:
    values = arm.mean(axis=0) - base.mean(axis=0)
    return {
        name: ScoreDifference(
            float(values[j]),
            interval(resampled[:, j], how.confidence),
            bootstrap_p(resampled[:, j]),
        )
        for j, name in enumerate(SCORES)
    }


def _paired_test(truth: Truth, base: Arm, arm: Arm) -> PairedTest:
    pairs = [
        mcnemar(truth.true == a.predicted, truth.true == b.predicted)
        for a, b in pairs_of_seeds(base, arm)
    ]
    effects = [pair.cohens_g for pair in pairs if pair.cohens_g is not None]
    return PairedTest(
        only_baseline=float(np.mean([pair.only_first for pair in pairs])),
        only_arm=float(np.mean([pair.only_second for pair in pairs])),
        cohens_g=float(np.mean(effects)) if effects else None,
        p=combined_p([pair.p for pair in pairs]),
        exact=all(pair.exact for pair in pairs),
        num_pairs=len(pairs),
    )


def pairs_of_seeds(first: Arm, second: Arm) -> list[tuple[SeedPredictions, SeedPredictions]]:
    """Equal seeds as pairs where both arms have the same seeds; otherwise each with each."""
    of_first = {seed.seed: seed for seed in first.seeds}
    of_second = {seed.seed: seed for seed in second.seeds}
    if of_first.keys() == of_second.keys():
        return [(of_first[name], of_second[name]) for name in sorted(of_first)]
    return [(a, b) for a in first.seeds for b in second.seeds]
