"""Scores of groups of test speakers: each speaker, gender and corpus. A part of ``report.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from gmp_atl_dist import metrics
from gmp_atl_dist.metrics import Bounds, Intervals
from gmp_atl_dist.records import UNKNOWN_GENDER
from gmp_atl_dist.report.codebook_content import Count
from gmp_atl_dist.report.outcome import Matrix
from gmp_atl_dist.report.protocol import Content
from gmp_atl_dist.statistics.summary import wilson_interval


class GroupContent(Content):
    """The scores of a speaker, a gender, or one of several corpora.

    ``recalls`` follow the class list; None for a class without a test utterance of the group. ``uar``
    is the mean of the others, because a speaker need not have recorded every emotion. ``gender`` is
    that of a speaker. ``intervals`` are given for genders and corpora that have every class. A speaker has
    ``war_interval``, Wilson's interval of accuracy; it is left out of the JSON for other groups.
    """

    name: str
    gender: str = ""
    count: Count
    war: float
    uar: float
    recalls: tuple[float | None, ...]
    support: tuple[Count, ...]
    confusion: Matrix
    intervals: Intervals | None = None
    war_interval: Bounds | None = None

    @model_serializer(mode="wrap")
    def _without_no_interval(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        values = handler(self)
        if self.war_interval is None:
            values.pop("war_interval", None)
        return values

    @property
    def num_classes(self) -> int:
        """Number of classes that ``uar`` is the mean of."""
        return sum(recall is not None for recall in self.recalls)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        expected = _scores(self.confusion)
        given = {name: getattr(self, name) for name in expected}
        if given != expected:
            raise ValueError(f"group {self.name!r}: its confusion matrix gives {expected}")
        return self

    @classmethod
    def of(
        cls,
        name: str,
        true: Sequence[int],
        predicted: Sequence[int],
        num_classes: int,
        *,
        gender: str = "",
        bootstrap: Mapping[str, float] | None = None,
        confidence: float | None = None,
    ) -> GroupContent:
        """Score the predictions of one group.

        Args:
            bootstrap: samples, confidence and seed of the intervals; None for no intervals.
            confidence: of Wilson's interval of accuracy; None for none.
        """
        counts = metrics.confusion_matrix(true, predicted, num_classes)
        intervals = None
        if bootstrap is not None and counts.sum(axis=1).all():
            intervals = metrics.bootstrap_interval(true, predicted, num_classes, **bootstrap)  # pyright: ignore[reportArgumentType]
        matrix = tuple(tuple(row) for row in counts.tolist())
        scores = _scores(matrix)
        wilson = None
        if confidence is not None and len(true):
            wilson = wilson_interval(int(counts.trace()), int(counts.sum()), confidence)
        given = {"name": name, "gender": gender, "confusion": matrix, "intervals": intervals}
        return cls.model_validate({**given, "war_interval": wilson, **scores})


def _scores(confusion: Matrix) -> dict[str, object]:
    counts = np.asarray(confusion, dtype=np.int64)
    support, hits = counts.sum(axis=1).tolist(), counts.diagonal().tolist()
    total = sum(support)
    recalls = tuple(h / n if n else None for h, n in zip(hits, support, strict=True))
    present = [recall for recall in recalls if recall is not None]
    return {
        "count": total,
        "war": sum(hits) / total if total else 0.0,
        "uar": sum(present) / len(present) if present else 0.0,
        "recalls": recalls,
        "support": tuple(support),
    }


class GroupsContent(Content):
    """All test speakers, lowest UAR first, and the genders and corpora, by name. Over all folds.

    ``corpora`` is empty, and left out of the JSON, unless a run has several.
    """

    speakers: tuple[GroupContent, ...] = ()
    genders: tuple[GroupContent, ...] = ()
    corpora: tuple[GroupContent, ...] = ()

    @model_serializer(mode="wrap")
    def _without_no_corpora(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        values = handler(self)
        return values if self.corpora else {k: v for k, v in values.items() if k != "corpora"}

    @classmethod
    def of(
        cls,
        true: Sequence[int],
        predicted: Sequence[int],
        speakers: Sequence[str],
        genders: Sequence[str],
        num_classes: int,
        *,
        samples: int,
        confidence: float,
        seed: int,
        corpora: Sequence[str] = (),
    ) -> GroupsContent:
        """Score predictions: one class index, speaker and gender per utterance.

        Args:
            corpora: the corpus of each utterance, if there are several.
        """
        gender_of = dict(zip(speakers, genders, strict=True))
        bootstrap = {"samples": samples, "confidence": confidence, "seed": seed}

        def rows(keys: Sequence[str], name: str) -> tuple[list[int], list[int]]:
            at = [i for i, key in enumerate(keys) if key == name]
            return [true[i] for i in at], [predicted[i] for i in at]

        by_speaker = [
            GroupContent.of(
                name,
                *rows(speakers, name),
                num_classes,
                gender=gender_of[name],
                confidence=confidence,
            )
            for name in gender_of
        ]
        return cls(
            speakers=tuple(sorted(by_speaker, key=lambda g: (g.uar, g.name))),
            genders=tuple(
                GroupContent.of(name, *rows(genders, name), num_classes, bootstrap=bootstrap)
                for name in sorted(set(genders))
                # A table of one row that says "unknown" says nothing.
                if set(genders) != {UNKNOWN_GENDER}
            ),
            corpora=tuple(
                GroupContent.of(name, *rows(corpora, name), num_classes, bootstrap=bootstrap)
                for name in sorted(set(corpora))
            ),
        )
