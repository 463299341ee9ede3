"""The figures of a sweep: scores, intervals and tests of its arms, matrices, and common errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gmp_atl_dist import metrics
from gmp_atl_dist.report.predictions import ErrorContent
from gmp_atl_dist.report.sweep_content import CommonErrorContent, SweepTestSet
from gmp_atl_dist.statistics import wording
from gmp_atl_dist.statistics.arms import Arm, Cell, Truth, arms_of
from gmp_atl_dist.statistics.bootstrap import Resampling, interval, resampled_scores, unit_of
from gmp_atl_dist.statistics.breakdown import BREAKDOWNS, fold_means, parts_of
from gmp_atl_dist.statistics.calibration import arm_calibration_error
from gmp_atl_dist.statistics.comparing import ComparedArm, Estimate, compare_arms
from gmp_atl_dist.statistics.counts import SCORES, seed_scores, uar_without_absent
from gmp_atl_dist.statistics.summary import summary


@dataclass(frozen=True)
class Figures:
    """The arms with at least one complete seed, and what they were tested on."""

    truth: Truth
    arms: tuple[Arm, ...]
    compared: dict[str, ComparedArm]
    test_set: SweepTestSet
    sentences: tuple[str, ...]

    def confusion(self, arm: str) -> tuple[tuple[float, ...], ...]:
        """(K, K) mean over seeds of the counts over all folds."""
        found = next(a for a in self.arms if a.name == arm)
        counts = [
            metrics.confusion_matrix(self.truth.true, seed.predicted, self.truth.num_classes)
            for seed in found.seeds
        ]
        return tuple(tuple(row) for row in np.mean(counts, axis=0).tolist())


def figures_of(
    cells: Iterable[Cell], classes: Sequence[str], baseline: str, how: Resampling
) -> Figures | None:
    """The figures; None without a cell. Differences are to ``baseline``, if it has a complete seed.

    Raises:
        NotComparableError: arms or seeds were tested on other utterances.
    """
    given = list(cells)
    if not given:
        return None
    truth, arms = arms_of(given, classes)
    if len(arms) > 1 and any(arm.name == baseline for arm in arms):
        comparison = compare_arms(truth, arms, baseline, how)
        compared, sentences = comparison.arms, comparison.sentences
    else:
        compared = _estimated(truth, arms, how)
        sentences = tuple(_about_estimates(truth, arms, how))
    return Figures(
        truth=truth,
        arms=arms,
        compared={arm.name: arm for arm in compared},
        test_set=SweepTestSet(
            num_utterances=len(truth.true),
            num_speakers=len(set(truth.speakers)),
            absent_classes=truth.absent_classes,
            unit=unit_of(truth.speakers),
            samples=how.samples,
            confidence=how.confidence,
        ),
        sentences=sentences,
    )


def _estimated(truth: Truth, arms: Sequence[Arm], how: Resampling) -> tuple[ComparedArm, ...]:
    """Scores and intervals without a difference: there is one arm, or no baseline."""
    resampled = resampled_scores(truth, arms, how)
    found = []
    for i, arm in enumerate(arms):
        observed = seed_scores(truth, arm)
        estimates = {
            name: Estimate(summary(observed[:, j]), interval(resampled[i, :, j], how.confidence))
            for j, name in enumerate(SCORES)
        }
        parts = {by: parts_of(truth, arm, by) for by in BREAKDOWNS}
        found.append(
            ComparedArm(
                name=arm.name,
                seeds=arm.seed_names,
                scores=estimates,
                uar_left_out=uar_without_absent(estimates["uar"].over_seeds.mean, truth),
                fold_means=fold_means(truth, arm),
                calibration_error=arm_calibration_error(truth, arm),
                parts={by: of for by, of in parts.items() if of},
                difference=None,
            )
        )
    return tuple(found)


def _about_estimates(truth: Truth, arms: Sequence[Arm], how: Resampling) -> Iterator[str]:
    by_speaker = unit_of(truth.speakers) == "speaker"
    yield wording.intervals(len(set(truth.speakers)), how, by_speaker=by_speaker)
    yield wording.NOT_COVERED
    if all(len(arm.seeds) == 1 for arm in arms):
        yield "Each arm has one seed, so nothing is known of the spread over seeds."


def common_errors(
    figures: Figures, shown: Iterable[ErrorContent], most: int
) -> tuple[tuple[CommonErrorContent, ...], int]:
    """The utterances that most models get wrong, and how many all of them do.

    Each arm and seed is a model. Those that more models get wrong come first; of equals, the one with the
    higher probability of the wrong classes.

    Args:
        shown: errors with pictures, of any report.
        most: how many utterances are returned.
    """
    truth = figures.truth
    models = [seed for arm in figures.arms for seed in arm.seeds]
    predicted = np.array([seed.predicted for seed in models])
    wrong = predicted != truth.true
    times = wrong.sum(axis=0)
    sure = np.full(predicted.shape, np.nan)
    for i, seed in enumerate(models):
        if seed.probabilities is not None:
            sure[i] = seed.probabilities[np.arange(len(truth.true)), predicted[i]]
    known = wrong & ~np.isnan(sure)
    counts = known.sum(axis=0)
    sums = np.where(known, np.nan_to_num(sure), 0.0).sum(axis=0)
    mean = np.divide(sums, counts, out=np.zeros(len(times)), where=counts > 0)
    order = sorted(
        np.flatnonzero(times).tolist(), key=lambda i: (-times[i], -mean[i], truth.utterances[i], i)
    )
    pictures = _pictures(shown)
    errors = []
    for i in order[:most]:
        picture = pictures.get(truth.utterances[i])
        votes = Counter(truth.classes[k] for k in predicted[:, i].tolist())
        errors.append(
            CommonErrorContent(
                utterance_id=truth.utterances[i],
                speaker=truth.speakers[i],
                gender=truth.genders[i],
                fold=models[0].folds[i],
                true=truth.classes[int(truth.true[i])],
                wrong=int(times[i]),
                models=len(models),
                predicted=tuple(sorted(votes.items(), key=lambda vote: (-vote[1], vote[0]))),
                probability=float(mean[i]) if counts[i] else None,
                seconds=picture.seconds if picture else None,
                spectrogram=picture.spectrogram if picture else None,
                scales=picture.scales if picture else (),
            )
        )
    return tuple(errors), int(np.count_nonzero(times == len(models)))


def _pictures(shown: Iterable[ErrorContent]) -> dict[str, ErrorContent]:
    """The first error of each utterance; one with frame labels is preferred."""
    found: dict[str, ErrorContent] = {}
    for error in shown:
        before = found.get(error.utterance_id)
        if before is None or (error.scales and not before.scales):
            found[error.utterance_id] = error
    return found
