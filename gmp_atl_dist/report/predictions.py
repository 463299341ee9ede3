"""Single predictions: all of them in columns, and the errors that are shown. A part of ``report.json``."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from gmp_atl_dist.report.codebook_content import Count, TimelineScale
from gmp_atl_dist.report.protocol import Content
from gmp_atl_dist.report.spectrogram import Spectrogram

Probability = Annotated[float, Field(ge=0, le=1)]
DIGITS = 4
"""Decimals of probabilities in ``report.json``. The artefacts of ``evaluate`` have all of them."""


class PredictionsContent(Content):
    """All test predictions in columns of equal length. ``true`` and ``predicted`` are class indices,
    and ``probabilities`` has one row per utterance, in the order of the class list."""

    utterances: tuple[str, ...] = ()
    folds: tuple[str, ...] = ()
    speakers: tuple[str, ...] = ()
    genders: tuple[str, ...] = ()
    true: tuple[Count, ...] = ()
    predicted: tuple[Count, ...] = ()
    probabilities: tuple[tuple[Probability, ...], ...] = ()

    @model_validator(mode="after")
    def _equal_lengths(self) -> Self:
        lengths = {name: len(getattr(self, name)) for name in type(self).model_fields}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of different lengths: {lengths}")
        return self


class ErrorContent(Content):
    """A wrong prediction. ``probability`` is that of the predicted class, ``of_true`` that of the true one.

    ``spectrogram`` and ``scales`` (frame labels) show at most the first seconds. Labels exist only where
    the protocol allowed clustering to use test audio.
    """

    utterance_id: str
    fold: str
    speaker: str
    gender: str
    true: str
    predicted: str
    probability: Probability
    of_true: Probability
    seconds: float
    spectrogram: Spectrogram | None = None
    scales: tuple[TimelineScale, ...] = ()
