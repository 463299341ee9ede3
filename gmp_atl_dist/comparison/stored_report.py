"""What a comparison reads of ``report.json``, whatever release wrote it.

The schema of the whole report changes between releases. Only these keys are read here, and none of them was
ever renamed. Predictions that are too many for ``report.json`` are in ``predictions.csv`` beside it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gmp_atl_dist import metrics
from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.records import source_of
from gmp_atl_dist.report.tables import PredictionRow
from gmp_atl_dist.statistics.arms import PredictedUtterance

Folds = Mapping[str, Sequence[PredictedUtterance]]
"""Fold -> predictions."""


@dataclass(frozen=True)
class StoredRun:
    """A run, or one fold of it, as a comparison needs it.

    Attributes:
        label: what people call it.
        place: path or URI; no two of a comparison are equal.
        protocol: None if it is not known.
        configuration: the stored configuration; None if it is not known.
        arm: what its sweep calls the arm; empty for a run that is named by itself.
    """

    label: str
    place: str
    protocol: str | None
    classes: tuple[str, ...]
    configuration: Mapping[str, Any] | None
    folds: Folds
    arm: str = ""


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Protocol(_Part):
    name: str


class _Predictions(_Part):
    utterances: tuple[str, ...] = ()
    folds: tuple[str, ...] = ()
    speakers: tuple[str, ...] = ()
    genders: tuple[str, ...] = ()
    true: tuple[int, ...] = ()
    predicted: tuple[int, ...] = ()
    probabilities: tuple[tuple[float, ...], ...] = ()


class _Outcome(_Part):
    confusion: tuple[tuple[int, ...], ...]


class _Pooled(_Part):
    outcome: _Outcome


class _Stored(_Part):
    protocol: _Protocol
    classes: tuple[str, ...] = Field(min_length=1)
    pooled: _Pooled
    predictions: _Predictions = _Predictions()
    configuration: dict[str, Any] | None = None


def read_stored_report(
    data: bytes, label: str, place: str, read_csv: Callable[[], bytes | None]
) -> StoredRun:
    """The run of a ``report.json``.

    Args:
        data: the file.
        label: what people call the run.
        place: path or URI of the file, for messages.
        read_csv: reads ``predictions.csv`` beside it; None if there is none.

    Raises:
        ArtifactError: it is no report, a key is missing, or it has no predictions, or other ones than those
            of its confusion matrix.
    """
    try:
        stored = _Stored.model_validate_json(data)
    except ValidationError as e:
        problem = e.errors(include_url=False)[0]
        key = ".".join(map(str, problem["loc"])) or "the file"
        raise ArtifactError(
            f"{place} is no report that can be compared: {key}: {problem['msg']}; give the report.json of a "
            f"finished run, or make the report again with gmp-atl run"
        ) from None
    try:
        rows = list(_rows(stored)) or list(_csv_rows(read_csv(), stored.classes))
    except (ValueError, KeyError, IndexError) as e:
        raise ArtifactError(f"{place}: its predictions are damaged: {e}; {_AGAIN}") from None
    if not rows:
        raise ArtifactError(
            f"{place} has no predictions of single utterances, and no predictions.csv lies beside it, so no "
            f"paired test is possible; {_AGAIN}"
        )
    _check_confusion(stored, rows, place)
    several = bool((stored.configuration or {}).get("corpora"))
    folds: dict[str, list[PredictedUtterance]] = {}
    for row in rows:
        corpus = source_of(row.speaker) if several else ""
        folds.setdefault(row.fold, []).append(
            PredictedUtterance(
                utterance_id=row.utterance_id,
                speaker=row.speaker,
                gender=row.gender,
                emotion=row.emotion,
                predicted=row.predicted,
                probabilities=tuple(row.probabilities),
                corpus=corpus,
            )
        )
    return StoredRun(
        label, place, stored.protocol.name, stored.classes, stored.configuration, folds
    )


_AGAIN = (
    "copy both files of the report, or name the run and its root: gmp-atl compare RUN --root URI"
)


def _rows(stored: _Stored) -> Iterator[PredictionRow]:
    found, classes = stored.predictions, stored.classes
    columns = [getattr(found, name) for name in type(found).model_fields]
    for name, fold, speaker, gender, true, predicted, p in zip(*columns, strict=True):
        if not (0 <= true < len(classes) and 0 <= predicted < len(classes)):
            raise ValueError(f"{name} has class {true} or {predicted} of {len(classes)}")
        yield PredictionRow(name, fold, speaker, gender, classes[true], classes[predicted], p)


def _csv_rows(data: bytes | None, classes: Sequence[str]) -> Iterator[PredictionRow]:
    if data is None:
        return
    for row in csv.DictReader(io.StringIO(data.decode("utf-8"))):
        yield PredictionRow(
            *(row[name] for name in PredictionRow._fields[:-1]),  # pyright: ignore[reportArgumentType]
            probabilities=tuple(float(row[f"p_{name}"]) for name in classes),
        )


def _check_confusion(stored: _Stored, rows: Sequence[PredictionRow], place: str) -> None:
    """A report and the predictions beside it may be of two runs, if somebody copied them."""
    index = {name: i for i, name in enumerate(stored.classes)}
    try:
        counts = metrics.confusion_matrix(
            [index[row.emotion] for row in rows], [index[row.predicted] for row in rows], len(index)
        )
    except KeyError as e:
        raise ArtifactError(
            f"{place}: its predictions have the class {e}, which is not in its class list"
        ) from None
    if not np.array_equal(counts, stored.pooled.outcome.confusion):
        raise ArtifactError(
            f"{place}: its predictions do not give its confusion matrix, so they are not of this report; "
            f"{_AGAIN}"
        )
