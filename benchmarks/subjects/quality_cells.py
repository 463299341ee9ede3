"""The cells of a sweep that the quality table compares, and its floor as one more arm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.harness.rounds import MeasurementError
from benchmarks.subjects.cepstra_svm import predictions_of
from gmp_atl_dist.comparison.references import resolve
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.pipeline import configured_folds
from gmp_atl_dist.stage_survey import find_fold
from gmp_atl_dist.stages.base import Context
from gmp_atl_dist.statistics.arms import Cell
from gmp_atl_dist.store.readers import read_emotions
from gmp_atl_dist.sweeps.record import GridCell, SweepRecord

FLOOR = "cepstra, F0 and SVM"
_FLOOR_SEED = "none"
"""The support vector machine has no random start."""


@dataclass(frozen=True)
class Rectangle:
    """The folds and the seeds of a sweep in which every arm is done."""

    folds: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: tuple[GridCell, ...]


def finished(record: SweepRecord) -> Rectangle:
    """The largest rectangle of folds x seeds that all arms have done; more folds win a tie.

    Arms, and seeds of an arm, can be compared only over the same utterances. So a seed that lacks a fold
    of the others is left out, or that fold is.
    """
    done = {(c.arm, c.fold, c.seed) for c in record.cells if c.state == "done"}
    whole = {
        (fold, seed)
        for fold in record.folds
        for seed in record.seeds
        if all((arm, fold, seed) in done for arm in record.arms)
    }
    best: tuple[tuple[str, ...], tuple[int, ...]] = ((), ())
    # The seeds that have all of some seed's folds: one of these rectangles is the largest.
    for seed in record.seeds:
        folds = tuple(fold for fold in record.folds if (fold, seed) in whole)
        seeds = tuple(s for s in record.seeds if all((fold, s) in whole for fold in folds))
        if folds and _size(folds, seeds) > _size(*best):
            best = folds, seeds
    folds, seeds = best
    cells = tuple(c for c in record.cells if c.fold in folds and c.seed in seeds)
    return Rectangle(folds, seeds, cells)


def _size(folds: Sequence[str], seeds: Sequence[int]) -> tuple[int, int]:
    return len(folds) * len(seeds), len(folds)


def stored_cells(rectangle: Rectangle, root: str) -> tuple[list[Cell], tuple[str, ...]]:
    """The predictions of the cells, as they are stored below ``root``, and the class list."""
    found: list[Cell] = []
    classes: tuple[str, ...] = ()
    for cell in rectangle.cells:
        stored = resolve(cell.evaluate, [root])
        (rows,) = stored.folds.values()
        classes = stored.classes
        found.append(Cell(cell.arm, str(cell.seed), cell.fold, rows))
    return found, classes


def floor_cells(
    config: RunConfig, context: Context, rectangle: Rectangle, cells: Sequence[Cell]
) -> list[Cell]:
    """The floor, fitted on the training speakers of each fold and tested on the utterances of ``cells``.

    Raises:
        MeasurementError: librosa is not installed, or other utterances were tested.
    """
    corpus = find_fold(config, context.store, context.source, 1).corpus
    folds = {fold.name: fold for fold in configured_folds(config, corpus)}
    floor: list[Cell] = []
    for name in rectangle.folds:
        rows = next(cell.predictions for cell in cells if cell.fold == name)
        predicted = dict(predictions_of(corpus, folds[name], read_emotions(corpus)))
        if predicted.keys() != {row.utterance_id for row in rows}:
            raise MeasurementError(f"{name}: the floor is not tested on the utterances of the arms")
        answers = [
            row._replace(predicted=predicted[row.utterance_id], probabilities=()) for row in rows
        ]
        floor.append(Cell(FLOOR, _FLOOR_SEED, name, answers))
    return floor
