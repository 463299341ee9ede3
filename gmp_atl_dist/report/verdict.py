"""What the scores show, in sentences: whether the model is better than chance, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from gmp_atl_dist.report.outcome import MIN_SPEAKERS, Outcome
from gmp_atl_dist.report.protocol import Content

Level = Literal["clear", "weak", "none"]

_FEW_UTTERANCES = 50
_FEW_OF_A_CLASS = 5
_MAX_NAMES = 6


class Verdict(Content):
    """``none``: not better than chance. ``weak``: better than chance, with reservations that the
    sentences name. ``clear``: better than chance without these."""

    level: Level
    sentences: Annotated[tuple[str, ...], Field(min_length=1)]


def verdict_of(outcome: Outcome, classes: Sequence[str]) -> Verdict:
    """The verdict on ``outcome``, whose confusion matrix follows ``classes``.

    The level follows from the intervals of UAR. Chance is 1 / K: the largest UAR of a model that
    ignores the audio.

    Raises:
        ValueError: the matrix has not one row per class.
    """
    if len(outcome.confusion) != len(classes):
        raise ValueError(
            f"{len(classes)} classes for a confusion matrix of {len(outcome.confusion)} rows; give "
            f"the class list of the predictions"
        )
    if len(classes) == 1:
        only = f"There is one class only, {classes[0]!r}, so the scores have no meaning."
        return Verdict(level="none", sentences=(only,))
    constant = _constant(outcome, classes)
    above, comparison = _against_chance(outcome, len(classes))
    reservations = [*_few(outcome, classes)]
    if not constant:
        reservations = [*_zero_width(outcome), *_never_predicted(outcome, classes), *reservations]
    sentences = (*constant, *comparison, *reservations, *_against_majority(outcome, classes))
    if not above:
        return Verdict(level="none", sentences=sentences)
    doubtful = reservations or len(comparison) > 1
    return Verdict(level="weak" if doubtful else "clear", sentences=sentences)


def _against_chance(outcome: Outcome, num_classes: int) -> tuple[bool, list[str]]:
    """Whether UAR is above chance, and the sentences about it. A second one is a reservation."""
    chance = 1 / num_classes
    level = f"{100 * outcome.intervals.confidence:g} %"
    low, high = outcome.intervals.uar
    interval = f"the {level} interval of UAR is {_percents(low, high)}"
    if high < chance:
        return False, [
            f"The model is worse than chance: {interval}, and chance is {_percent(chance)}. "
            f"Check that labels and recordings belong together."
        ]
    if low <= chance:
        return False, [
            f"The model is not better than chance in this test: {interval}, which includes chance "
            f"({_percent(chance)})."
        ]
    found = f"The model is better than chance: {interval}, and chance is {_percent(chance)}."
    speakers = outcome.speaker_intervals
    if speakers is not None and speakers.uar[0] <= chance:
        return True, [
            found,
            f"This is not shown for other speakers: the interval that resamples whole speakers, "
            f"{_percents(*speakers.uar)}, includes chance.",
        ]
    return True, [found]


def _constant(outcome: Outcome, classes: Sequence[str]) -> list[str]:
    predicted = _predicted(outcome)
    used = [i for i, count in enumerate(predicted) if count]
    if len(used) > 1:
        return []
    return [
        f"The model predicts {classes[used[0]]!r} for every recording.",
        "An interval of zero width means no information here: every resample gives the same score.",
    ]


def _zero_width(outcome: Outcome) -> list[str]:
    low, high = outcome.intervals.uar
    if high > low:
        return []
    return [
        "The interval of UAR has zero width: every resample gives the same score. That is no "
        "information about the uncertainty."
    ]


def _never_predicted(outcome: Outcome, classes: Sequence[str]) -> list[str]:
    never = [name for name, count in zip(classes, _predicted(outcome), strict=True) if not count]
    return [f"The model never predicts {_names(never)}."] if never else []


def _few(outcome: Outcome, classes: Sequence[str]) -> list[str]:
    """Reservations about the size of the test set."""
    scores, sentences = outcome.scores, []
    if scores.absent_classes:
        absent = _names([classes[i] for i in scores.absent_classes])
        sentences.append(f"The test set has no utterance of {absent}; UAR counts it as recall 0.")
    smallest = min(range(len(classes)), key=lambda i: scores.support[i] or scores.num_utterances)
    fewest = scores.support[smallest]
    if scores.num_utterances < _FEW_UTTERANCES:
        sentences.append(
            f"The test set has only {scores.num_utterances} utterances, so the scores are uncertain."
        )
    elif fewest < _FEW_OF_A_CLASS:
        sentences.append(
            f"The smallest class of the test set is {classes[smallest]!r} with {fewest} "
            f"{'utterance' if fewest == 1 else 'utterances'}, so its recall is uncertain."
        )
    if outcome.speaker_intervals is None:
        sentences.append(
            f"The test set has fewer than {MIN_SPEAKERS} speakers, so the scores may not hold for "
            f"other speakers."
        )
    return sentences


def _against_majority(outcome: Outcome, classes: Sequence[str]) -> list[str]:
    """WAR can be high for a model that only knows which class is frequent."""
    scores = outcome.scores
    most = max(scores.support)
    majority = most / scores.num_utterances
    if scores.war > majority:
        return []
    name = classes[scores.support.index(most)]
    return [
        f"WAR ({_percent(scores.war)}) is not above that of always predicting {name!r} "
        f"({_percent(majority)})."
    ]


def _predicted(outcome: Outcome) -> list[int]:
    """How often each class was predicted."""
    return [sum(column) for column in zip(*outcome.confusion, strict=True)]


def _names(names: Sequence[str]) -> str:
    shown = [repr(name) for name in names[:_MAX_NAMES]]
    if len(names) > _MAX_NAMES:
        shown.append(f"{len(names) - _MAX_NAMES} more classes")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _percents(low: float, high: float) -> str:
    return f"{100 * low:.1f} to {100 * high:.1f} %"
