"""What a report shows of codebooks and labels: a part of the schema of ``report.json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from gmp_atl_dist import metrics
from gmp_atl_dist.metrics import ClusterQuality, Usage
from gmp_atl_dist.report.protocol import Content

Count = Annotated[int, Field(ge=0)]


class FitContent(Content):
    """How a codebook was fitted. ``mean_squared_distance`` is that of a frame to its centroid.

    ``stability`` is the adjusted Rand index of two fits from two seeds, None where not measured.
    """

    seed: int
    frames: Count
    mean_squared_distance: float
    iterations: Count
    relocated: Count = 0
    stability: float | None = None


class CentroidMap(Content):
    """Centroids in their two principal directions, with the commonest class of each one's frames.

    Classes are indices, None of a label that was never used.
    """

    points: tuple[tuple[float, float], ...]
    emotions: tuple[int | None, ...]
    genders: tuple[int | None, ...]


class CodebookContent(Content):
    """One codebook: ``counts`` holds how many training frames got each of its ``k`` labels.

    ``group`` is the gender of a ``by_gender`` codebook, else "all". The qualities compare the label
    of a frame with the emotion, the gender and the speaker of its utterance. ``fit`` is None of a
    codebook that was imported; ``origin`` says whence.
    """

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
                f"fit k = {self.k} and {self.usage}"
            )
        if self.map is not None and len(self.map.points) != self.k:
            raise ValueError(
                f"layer {self.layer}: a map of {len(self.map.points)} centroids, k = {self.k}"
            )
        return self

    @classmethod
    def of(
        cls,
        layer: int,
        counts: Sequence[int],
        *,
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
        """A codebook of ``len(counts)`` labels; its usage follows from the counts."""
        return cls(
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
    """An utterance's labels at one scale, an id a frame; there are ``k`` ids."""

    layer: int
    k: int
    labels: tuple[Count, ...]


class TimelineContent(Content):
    """The labels of one utterance over time, as an example."""

    utterance_id: str
    emotion: str
    gender: str
    scales: tuple[TimelineScale, ...]
