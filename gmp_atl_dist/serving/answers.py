"""The JSON of a prediction, as clients and the OpenAPI page see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field

from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.prediction.notes import NOTES
from gmp_atl_dist.prediction.windows import verdict_of
from gmp_atl_dist.serving.clips import ClipPlan
from gmp_atl_dist.serving.refusals import STATUS_OF
from gmp_atl_dist.serving.runner import ModelFacts


class ErrorDetail(BaseModel):
    code: str = Field(description="a short name that stays the same in later releases")
    message: str = Field(description="what was found, and what to do")


class ErrorAnswer(BaseModel):
    """Any answer that is not a success."""

    error: ErrorDetail


def errors_of(*codes: str) -> dict[int | str, dict[str, Any]]:
    """What the description says of answers with these codes."""
    by_status: dict[int | str, list[str]] = {}
    for code in codes:
        by_status.setdefault(STATUS_OF[code], []).append(code)
    return {
        status: {"model": ErrorAnswer, "description": f"Codes: {', '.join(found)}"}
        for status, found in sorted(by_status.items())
    }


class ModelAnswer(BaseModel):
    """The model and the limits of this server."""

    model: str = Field(description="the name of the model")
    emotions: list[str] = Field(description="the classes, in the order of the model")
    parameters: int = Field(description="number of weights")
    device: str = Field(description="cpu or cuda")
    sample_rate_hz: int = Field(description="rate that recordings are resampled to")
    max_upload_mib: float
    max_recording_s: float
    version: str = Field(description="version of gmp_atl_dist")


class Timing(BaseModel):
    """Where the time of a request went, in milliseconds."""

    decode_ms: float = Field(description="decoding and resampling, the wait for a thread included")
    compute_ms: float = Field(description="forward passes of the batches that had a part of it")
    wait_ms: float = Field(description="waiting for a place in a batch, and transport")
    total_ms: float = Field(description="from the whole upload to the answer")
    real_time_factor: float = Field(description="total time divided by the recording's length")


class NoteAnswer(BaseModel):
    """Says that a recording is unlike what models are trained on."""

    code: str = Field(description=f"one of {', '.join(NOTES)}")
    message: str = Field(description="what the code means")


class WindowAnswer(BaseModel):
    start_s: float
    end_s: float
    emotion: str
    probabilities: dict[str, float]


class PredictionAnswer(BaseModel):
    """The emotion of a recording, and of its windows where they were asked for."""

    emotion: str = Field(description="the most probable class")
    probabilities: dict[str, float] = Field(description="softmax over the classes; not calibrated")
    computed_from: Literal["recording", "windows"] = Field(
        description="windows: the mean over time of the windows of a recording of more than 30 s"
    )
    notes: list[NoteAnswer] = Field(
        description="the recording is unlike training data, for example quiet; empty if there is nothing "
        "to say. Read them before you use the emotion"
    )
    duration_s: float
    windows: list[WindowAnswer]
    waveform: list[tuple[float, float]] | None = Field(
        default=None,
        description="lowest and highest sample of each of equal pieces of the recording",
    )
    timing: Timing
    model: str


def prediction_of(
    facts: ModelFacts,
    plan: ClipPlan,
    num_samples: int,
    notes: Sequence[str],
    probabilities: Sequence[Sequence[float]],
    timing: Timing,
    waveform: list[tuple[float, float]] | None,
) -> PredictionAnswer:
    """The answer from the codes of notes, and the probabilities of ``plan.spans`` in order."""
    rows = list(probabilities)
    windows = rows if plan.whole is None else rows[1:]
    whole = verdict_of(plan.windows, rows) if plan.whole is None else rows[0]
    return PredictionAnswer(
        emotion=_best(facts, whole),
        probabilities=dict(zip(facts.emotions, whole, strict=True)),
        computed_from="windows" if plan.whole is None else "recording",
        notes=[NoteAnswer(code=code, message=NOTES[code]) for code in notes],
        duration_s=num_samples / SAMPLE_RATE_HZ,
        windows=[
            WindowAnswer(
                start_s=start / SAMPLE_RATE_HZ,
                end_s=stop / SAMPLE_RATE_HZ,
                emotion=_best(facts, row),
                probabilities=dict(zip(facts.emotions, row, strict=True)),
            )
            for (start, stop), row in zip(plan.windows, windows, strict=True)
        ],
        waveform=waveform,
        timing=timing,
        model=facts.label,
    )


def waveform_of(pcm16: npt.NDArray[np.int16], points: int) -> list[tuple[float, float]]:
    """(lowest, highest) sample in [-1, 1) of each of at most ``points`` equal pieces."""
    pieces = np.array_split(pcm16, min(points, len(pcm16)))
    return [
        (round(int(p.min()) / 32768, 4), round(int(p.max()) / 32768, 4)) for p in pieces if len(p)
    ]


def _best(facts: ModelFacts, row: Sequence[float]) -> str:
    return facts.emotions[max(range(len(row)), key=row.__getitem__)]
