"""Stage ``label``: the nearest centroid of every frame and scale, the pseudo-labels.

``Label`` reads stored features; ``FusedLabel`` computes them once more and stores labels alone. Both
write the same parts. Counts of every label are kept, because empty or one-sided labels train
"successfully": a scale of which a single label is left stops the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from gmp_atl_dist.config import ExtractConfig, Json
from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.stages.base import Context, Pending, Seal, Stage, map_parts, sealed
from gmp_atl_dist.stages.extract import forward_argument
from gmp_atl_dist.stages.learners import Learners, plan_parts
from gmp_atl_dist.store.artifact import Artifact, ArtifactWriter
from gmp_atl_dist.store.features import feature_source_parts
from gmp_atl_dist.store.readers import label_counts, read_codebooks, read_labels


@dataclass(frozen=True)
class Label(Stage):
    """Assign labels to every utterance that was extracted."""

    corpus: Artifact
    features: Artifact | Pending
    codebooks: Artifact | Pending
    fold_name: str

    kind: ClassVar[str] = "label"

    @property
    def label(self) -> str:
        return f"label {self.fold_name}"

    def science(self) -> dict[str, Json]:
        return {}

    def inputs(self) -> Mapping[str, Artifact | Pending]:
        return {"corpus": self.corpus, "features": self.features, "codebooks": self.codebooks}

    def run(self, context: Context, out: ArtifactWriter) -> Seal:
        from gmp_atl_dist.inference.labeller import Labeller, LabellerArgument

        features, codebooks = sealed(self.features), sealed(self.codebooks)
        layer = read_codebooks(codebooks)[0].layer
        map_parts(
            context,
            out,
            self.label,
            [Task(name) for name in feature_source_parts(features, layer)],
            Labeller,
            LabellerArgument(self.corpus, features, codebooks, context.store, out.key),
            context.settings.label,
            outputs=lambda name: [name],
        )
        return Seal()


@dataclass(frozen=True)
class FusedLabel(Stage):
    """Compute features and assign labels in one place; the workers are those of ``extract``."""

    config: ExtractConfig
    warmup: Artifact | Pending
    codebooks: Artifact | Pending
    learners: Learners

    kind: ClassVar[str] = "label"

    @property
    def label(self) -> str:
        return f"label {self.learners.fold.name}"

    def science(self) -> dict[str, Json]:
        extract = self.config.model_dump(mode="json", exclude={"layers", "compression"})
        return {"fused": extract, "speakers": list(self.learners.speakers)}

    def inputs(self) -> Mapping[str, Artifact | Pending]:
        corpus = self.learners.corpus
        return {"corpus": corpus, "warmup": self.warmup, "codebooks": self.codebooks}

    def run(self, context: Context, out: ArtifactWriter) -> Seal:
        from gmp_atl_dist.inference.audio_slices import AudioSlices
        from gmp_atl_dist.inference.labeller import FusedLabeller, FusedLabellerArgument

        codebooks = sealed(self.codebooks)
        layers = tuple(sorted({book.layer for book in read_codebooks(codebooks)}))
        workers = context.settings.extract
        forward = forward_argument(
            self.config, sealed(self.warmup), self.learners, layers, workers, None
        )
        map_parts(
            context,
            out,
            self.label,
            plan_parts(self.learners.index(), self.config.part_frames),
            FusedLabeller,
            FusedLabellerArgument(forward, codebooks, context.store, out.key),
            workers,
            outputs=lambda name: [name],
            reader=partial(AudioSlices, forward.heard),
        )
        return Seal()


def check_labels(labels: Artifact, codebooks: Artifact) -> list[np.ndarray]:
    """int64 counts [label ids] of every scale.

    Raises:
        ModelError: a label is out of range, or a scale has one label left.
    """
    sizes = label_counts(codebooks)
    counts = [np.zeros(size, dtype=np.int64) for size in sizes]
    for utterance_id, scales in read_labels(labels).items():
        if len(scales) != len(sizes):
            raise ModelError(
                f"utterance {utterance_id!r} has labels of {len(scales)} scales, expected "
                f"{len(sizes)}; run gmp-atl verify"
            )
        for i, ids in enumerate(scales):
            if ids.size and not 0 <= ids.min() <= ids.max() < sizes[i]:
                raise ModelError(
                    f"utterance {utterance_id!r}: labels of scale {i} run from {ids.min()} to "
                    f"{ids.max()}, expected 0 to {sizes[i] - 1}; run gmp-atl verify"
                )
            counts[i] += np.bincount(ids, minlength=sizes[i])
    if not counts or not counts[0].any():
        raise ModelError(
            "there is no label at all; run gmp-atl verify, and the extract stage again"
        )
    for i, count in enumerate(counts):
        if np.count_nonzero(count) < 2:
            raise ModelError(
                f"scale {i}: every frame has label {int(count.argmax())}, so there is nothing to "
                f"learn; look at the features, or choose another layer in cluster.scales"
            )
    return counts
