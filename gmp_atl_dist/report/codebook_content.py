"""The report's content on codebooks and labels: a part of the schema of ``report.json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from gmp_atl_dist import metrics
from gmp_atl_dist.metrics import ClusterQuality, Usage
from gmp_atl_dist.report.protocol import Content
from gmp_atl_dist.report.spectrogram import Spectrogram

Count = Annotated[int, Field(ge=0)]


class FitContent(Content):
    """How a codebook was fitted.

    Attributes:
        seed: of the initialization.
        frames: number of frames that were fitted.
        mean_squared_distance: of a frame to its centroid, at the end.
        iterations: number of updates.
        relocated: how many times an empty cluster was relocated.
        stability: adjusted Rand index of two fits from two seeds; None if it was not measured.
    """

    seed: int
    frames: Count
    mean_squared_distance: float
    iterations: Count
    relocated: Count = 0
    stability: float | None = None


class CentroidMap(Content):
    """Centroids in their two principal directions, with the most frequent class of their frames.

    Classes are indices; None for a label that was never used.
    """

    points: tuple[tuple[float, float], ...]
    emotions: tuple[int | None, ...]
    genders: tuple[int | None, ...]


class CodebookContent(Content):
    """One codebook. ``counts`` holds the number of training frames with each of its ``k`` labels.

    ``group`` is the gender of a ``by_gender`` codebook, otherwise "all". The qualities compare the
    label of a frame with the emotion, the gender and the speaker of its utterance. ``fit`` is None
    for an imported codebook; ``origin`` names its source. Codebooks of one ``scale`` share their labels.
    """

    scale: Count = 0
    layer: int
    k: int
    group: str = "all"
    counts: tuple[Count, ...]
    usage: Usage
    emotion: ClusterQuality | None = None
    gender: ClusterQuality | None = None
    speaker: ClusterQuality | None = None
    metric: str = "euclidean"
    origin: str = "fitted"
    fingerprint: str = ""
    fit: FitContent | None = None
    map: CentroidMap | None = None

    @model_validator(mode="after")
    def _counted(self) -> Self:
        used = sum(count > 0 for count in self.counts)
        if (len(self.counts), self.k, used) != (self.k, self.usage.k, self.usage.used):
            raise ValueError(
                f"layer {self.layer}: {len(self.counts)} counts, {used} of them above 0, do not "
                f"match k = {self.k} and {self.usage}"
            )
        if self.map is not None and len(self.map.points) != self.k:
            raise ValueError(
                f"layer {self.layer}: the map has {len(self.map.points)} centroids, but k = {self.k}"
            )
        return self

    @classmethod
    def of(
        cls,
        layer: int,
        counts: Sequence[int],
        *,
        scale: int = 0,
        group: str = "all",
        emotion: ClusterQuality | None = None,
        gender: ClusterQuality | None = None,
        speaker: ClusterQuality | None = None,
        metric: str = "euclidean",
        origin: str = "fitted",
        fingerprint: str = "",
        fit: FitContent | None = None,
        map: CentroidMap | None = None,
    ) -> CodebookContent:
        """A codebook with ``len(counts)`` labels. Its usage is computed from the counts."""
        return cls(
            scale=scale,
            layer=layer,
            k=len(counts),
            group=group,
            counts=tuple(int(count) for count in counts),
            usage=metrics.label_usage(np.asarray(counts, dtype=np.int64)),
            emotion=emotion,
            gender=gender,
            speaker=speaker,
            metric=metric,
            origin=origin,
            fingerprint=fingerprint,
            fit=fit,
            map=map,
        )


class TimelineScale(Content):
    """The labels of an utterance at one scale: one id per frame, out of ``k`` ids."""

    layer: int
    k: int
    labels: tuple[Count, ...]


class TimelineContent(Content):
    """The labels of one example utterance over time, and its spectrogram over the same frames."""

    utterance_id: str
    emotion: str
    gender: str
    scales: tuple[TimelineScale, ...]
    spectrogram: Spectrogram | None = None
