"""Arms and what they are tested on: the input of every comparison.

An arm is one way to train a model, with one or more seeds. A :class:`Cell` is one arm with one seed in one
fold, as a run or a sweep produces it. :func:`arms_of` puts cells together and refuses those that were not
tested on the same utterances.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gmp_atl_dist.errors import CorpusError

Indices = NDArray[np.int64]
Floats = NDArray[np.float64]

_SHOWN = 5


class NotComparableError(CorpusError):
    """Runs cannot be compared: classes, test sets or protocols differ; names what differs."""


class PredictedUtterance(NamedTuple):
    """What an arm predicted for one test utterance.

    ``probabilities`` follow the class list; they may be empty, and then nothing is known of the arm's
    calibration. ``corpus`` is the name of one of several corpora, or empty.
    """

    utterance_id: str
    speaker: str
    gender: str
    emotion: str
    predicted: str
    probabilities: tuple[float, ...] = ()
    corpus: str = ""


@dataclass(frozen=True)
class Cell:
    """The predictions of one arm with one seed in one fold."""

    arm: str
    seed: str
    fold: str
    predictions: Sequence[PredictedUtterance]


@dataclass(frozen=True)
class Truth:
    """The utterances that all arms were tested on, sorted by fold-free key. All columns have length n.

    Attributes:
        classes: the class list; ``true`` holds indices into it.
        true: class of each utterance, (n,).
    """

    classes: tuple[str, ...]
    utterances: tuple[str, ...]
    true: Indices
    speakers: tuple[str, ...]
    genders: tuple[str, ...]
    corpora: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def absent_classes(self) -> tuple[str, ...]:
        """Classes of the list without a test utterance."""
        present = {*self.true.tolist()}
        return tuple(name for i, name in enumerate(self.classes) if i not in present)


@dataclass(frozen=True)
class SeedPredictions:
    """The predictions of one arm with one seed, in the order of :class:`Truth`.

    Attributes:
        predicted: class index of each utterance, (n,).
        probabilities: (n, classes); None where they are not known.
        folds: the fold that tested each utterance.
    """

    seed: str
    predicted: Indices
    probabilities: Floats | None
    folds: tuple[str, ...]


@dataclass(frozen=True)
class Arm:
    """One way to train a model, with its seeds in the order given."""

    name: str
    seeds: tuple[SeedPredictions, ...]

    @property
    def seed_names(self) -> tuple[str, ...]:
        return tuple(seed.seed for seed in self.seeds)


def arms_of(cells: Iterable[Cell], classes: Sequence[str]) -> tuple[Truth, tuple[Arm, ...]]:
    """Puts the folds of each arm and seed together. The order of cells and of utterances changes nothing
    but the order of the arms and of their seeds.

    An id identifies an utterance. If an arm tests the same id in several folds, fold and id identify it
    together, and all arms need the same folds.

    Raises:
        NotComparableError: two arms, or two seeds of one, were tested on other utterances, or an utterance
            has another label or speaker in one of them; the message says how many, and names the first.
        ValueError: there is no cell; one arm, seed and fold is given twice; a label is not in ``classes``.
    """
    runs: dict[tuple[str, str], dict[str, Sequence[PredictedUtterance]]] = {}
    for cell in cells:
        folds = runs.setdefault((cell.arm, cell.seed), {})
        if cell.fold in folds:
            raise ValueError(f"{cell.arm} seed {cell.seed} fold {cell.fold} is given twice")
        folds[cell.fold] = cell.predictions
    if not runs:
        raise ValueError("there is no prediction to compare; give the cells of at least one arm")
    by_fold = any(_repeats(folds) for folds in runs.values())
    tables = {key: _by_key(folds, by_fold) for key, folds in runs.items()}
    first = next(iter(tables))
    for key, table in tables.items():
        _check_same(_named(first, runs), tables[first], _named(key, runs), table)
    order = sorted(tables[first])
    index = {name: i for i, name in enumerate(classes)}
    rows = [tables[first][key][1] for key in order]
    truth = Truth(
        classes=tuple(classes),
        utterances=tuple(row.utterance_id for row in rows),
        true=_class_indices([row.emotion for row in rows], index),
        speakers=tuple(row.speaker for row in rows),
        genders=tuple(row.gender for row in rows),
        corpora=tuple(row.corpus for row in rows),
    )
    arms: dict[str, list[SeedPredictions]] = {}
    for (arm, seed), table in tables.items():
        arms.setdefault(arm, []).append(_seed(seed, [table[key] for key in order], index))
    return truth, tuple(Arm(name, tuple(seeds)) for name, seeds in arms.items())


_Key = tuple[str, str]
"""(fold, utterance id); the fold is empty where ids suffice."""
_Table = Mapping[_Key, tuple[str, PredictedUtterance]]


def _repeats(folds: Mapping[str, Sequence[PredictedUtterance]]) -> bool:
    counts = Counter(row.utterance_id for rows in folds.values() for row in rows)
    return any(count > 1 for count in counts.values())


def _by_key(folds: Mapping[str, Sequence[PredictedUtterance]], by_fold: bool) -> _Table:
    table: dict[_Key, tuple[str, PredictedUtterance]] = {}
    for fold, rows in folds.items():
        for row in rows:
            key = (fold if by_fold else "", row.utterance_id)
            if key in table:
                raise ValueError(f"fold {fold} predicts {row.utterance_id!r} twice")
            table[key] = (fold, row)
    return table


def _named(key: tuple[str, str], runs: Mapping[tuple[str, str], object]) -> str:
    arm, seed = key
    return f"{arm} (seed {seed})" if sum(name == arm for name, _ in runs) > 1 else arm


def _check_same(first: str, expected: _Table, second: str, found: _Table) -> None:
    problems = [
        *_ids(f"only {first} tests", expected.keys() - found.keys()),
        *_ids(f"only {second} tests", found.keys() - expected.keys()),
    ]
    shared = sorted(expected.keys() & found.keys())
    for what in ("emotion", "speaker"):
        other = [
            f"{_shown(key)} ({a} and {b})"
            for key in shared
            if (a := getattr(expected[key][1], what)) != (b := getattr(found[key][1], what))
        ]
        if other:
            problems.append(f"{_count(len(other))} with another {what}: {_some(other)}")
    if problems:
        raise NotComparableError.of_all(
            f"{first} ({_count(len(expected))}) and {second} ({_count(len(found))}) were not tested on the "
            f"same test set, so their scores cannot be compared; compare runs over the same corpus, classes "
            f"and folds:",
            problems,
        )


def _ids(words: str, keys: Iterable[_Key]) -> list[str]:
    names = [_shown(key) for key in sorted(keys)]
    return [f"{words} {_count(len(names))}: {_some(names)}"] if names else []


def _count(number: int) -> str:
    return f"{number:,} utterance{'' if number == 1 else 's'}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def _shown(key: _Key) -> str:
    fold, name = key
    return f"{name} of {fold}" if fold else name


def _class_indices(names: Sequence[str], index: Mapping[str, int]) -> Indices:
    unknown = sorted({name for name in names if name not in index})
    if unknown:
        raise ValueError(f"{', '.join(unknown)} not in the class list {list(index)}")
    return np.array([index[name] for name in names], dtype=np.int64)


def _seed(
    seed: str, rows: Sequence[tuple[str, PredictedUtterance]], index: Mapping[str, int]
) -> SeedPredictions:
    known = all(len(row.probabilities) == len(index) for _, row in rows)
    return SeedPredictions(
        seed=seed,
        predicted=_class_indices([row.predicted for _, row in rows], index),
        probabilities=np.array([row.probabilities for _, row in rows]) if known else None,
        folds=tuple(fold for fold, _ in rows),
    )
