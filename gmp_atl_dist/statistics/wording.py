"""Sentences about intervals and tests: how they are made, and what they do not cover."""

from __future__ import annotations

from collections.abc import Iterator

from gmp_atl_dist.statistics.arms import Arm, Truth
from gmp_atl_dist.statistics.bootstrap import FEW_SPEAKERS, MIN_SPEAKERS, Resampling, unit_of

NOT_COVERED = (
    "Intervals cover the choice of the test data alone. They do not cover the random seed, the choice of "
    "settings, or other corpora."
)


def intervals(speakers: int, how: Resampling, *, by_speaker: bool) -> str:
    """How the intervals over ``speakers`` test speakers are drawn."""
    level = f"{100 * how.confidence:g} % intervals are percentile bootstraps of {how.samples:,} resamples"
    if not by_speaker:
        return (
            f"{level} of single utterances, because the test set has fewer than {MIN_SPEAKERS} speakers "
            f"({speakers}): they say nothing about other speakers."
        )
    few = (
        f" With fewer than {FEW_SPEAKERS} speakers they tend to be too narrow."
        if speakers < FEW_SPEAKERS
        else ""
    )
    return (
        f"{level} of whole speakers ({speakers}), because utterances of one speaker are alike.{few}"
    )


def comparison(
    truth: Truth, arms: tuple[Arm, ...], baseline: str, how: Resampling
) -> Iterator[str]:
    """What a reader of a comparison must know."""
    speakers = len(set(truth.speakers))
    yield intervals(speakers, how, by_speaker=unit_of(truth.speakers) == "speaker")
    yield NOT_COVERED
    yield (
        f"Differences are to {baseline}, in points, on the same resamples (paired). p is that of the paired "
        f"bootstrap of UAR; McNemar's test compares accuracy and takes utterances as independent, so its p "
        f"is too small where speakers differ."
    )
    if len(arms) > 2:
        yield f"Holm's correction is over the {len(arms) - 1} differences of a column of p-values."
    if any(len(arm.seeds) > 1 for arm in arms):
        yield (
            "Scores are means over the seeds of an arm; sd and range are over seeds. Each resample scores "
            "every seed, and averages. McNemar's p is Rüger's bound over the pairs of seeds."
        )
    if all(len(arm.seeds) == 1 for arm in arms):
        yield "Each arm has one seed, so nothing is known of the spread over seeds."
    if truth.absent_classes:
        yield (
            f"The test set has no utterance of {', '.join(truth.absent_classes)}. UAR counts a class without "
            f"an utterance as recall 0; 'UAR, left out' is the mean over the other classes."
        )
