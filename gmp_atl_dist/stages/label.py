"""Stage ``label``: the pseudo-labels, which are the nearest centroid of every frame at every scale.

``Label`` reads stored features; ``FusedLabel`` computes features again and stores labels alone. Both write
the same parts. Labels are checked before they are sealed, because a training on empty or constant labels
raises no error. A scale with a single label stops the run; so do labels of another codebook, ids out of
range, and missing utterances. ``histogram.json`` keeps the counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import ClassVar

from gmp_atl_dist.config import ExtractConfig, Json, canonical_json, hashed
from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.stages.base import Context, Handle, Seal, Stage, sealed
from gmp_atl_dist.stages.extract import forward_argument
from gmp_atl_dist.stages.frame_index import frame_index
from gmp_atl_dist.stages.gender import gender_inputs
from gmp_atl_dist.stages.mapped import map_parts
from gmp_atl_dist.stages.part_plan import plan_parts
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.codebooks import read_codebooks
from gmp_atl_dist.store.features import feature_receipts
from gmp_atl_dist.store.labels import LabelCheck, stream_labels
from gmp_atl_dist.store.training_set import TrainingSet
from gmp_atl_dist.store.writer import ArtifactWriter

HISTOGRAM_NAME = "histogram.json"


@dataclass(frozen=True)
class Label(Stage):
    """Assign labels to every utterance that was extracted."""

    features: Handle
    codebooks: Handle
    training: TrainingSet
    iteration: int = 0

    kind: ClassVar[str] = "label"
    version: ClassVar[int] = 2

    @property
    def fold_name(self) -> str:
        return self.training.fold.name

    def science(self) -> dict[str, Json]:
        return {}

    def inputs(self) -> Mapping[str, Handle]:
        corpus = self.training.corpus
        inputs = {"corpus": corpus, "features": self.features, "codebooks": self.codebooks}
        return {**inputs, **gender_inputs(self.training)}

    def run(self, context: Context, out: ArtifactWriter) -> Seal:
        from gmp_atl_dist.inference.labeller import Labeller, LabellerArgument

        features, codebooks = sealed(self.features), sealed(self.codebooks)
        layers = sorted({book.layer for book in read_codebooks(codebooks)})
        # Before anything starts, a codebook of a layer without features is refused by name.
        parts, *_ = [feature_receipts(features, layer) for layer in layers]
        workers = context.settings.label
        map_parts(
            context,
            out,
            context.tags(self),
            [Task(name) for name in parts],
            Labeller,
            LabellerArgument(
                self.training,
                features,
                codebooks,
                workers,
                context.settings.cluster.engine,
                context.store,
                out.key,
            ),
            workers,
            outputs=lambda name: [name],
        )
        check_written(out, codebooks, self.training)
        return Seal()


@dataclass(frozen=True)
class FusedLabel(Stage):
    """Compute features and assign labels in the same worker; the workers are those of ``extract``."""

    config: ExtractConfig
    model: Handle
    codebooks: Handle
    training: TrainingSet
    iteration: int = 0

    kind: ClassVar[str] = "label"
    version: ClassVar[int] = 2

    @property
    def fold_name(self) -> str:
        return self.training.fold.name

    def science(self) -> dict[str, Json]:
        extract = hashed(self.config, exclude={"layers", "compression"})
        return {"fused": extract, **self.training.training_speakers.hashed()}

    def inputs(self) -> Mapping[str, Handle]:
        corpus = self.training.corpus
        inputs = {"corpus": corpus, self.model.kind: self.model, "codebooks": self.codebooks}
        return {**inputs, **gender_inputs(self.training)}

    def run(self, context: Context, out: ArtifactWriter) -> Seal:
        from gmp_atl_dist.inference.audio_slices import AudioSlices
        from gmp_atl_dist.inference.labeller import FusedLabeller, FusedLabellerArgument

        codebooks = sealed(self.codebooks)
        layers = tuple(sorted({book.layer for book in read_codebooks(codebooks)}))
        workers = context.settings.extract
        forward = forward_argument(
            self.config, sealed(self.model), self.training, layers, workers, None
        )
        map_parts(
            context,
            out,
            context.tags(self),
            plan_parts(frame_index(self.training), self.config.part_frames),
            FusedLabeller,
            FusedLabellerArgument(
                forward, codebooks, context.settings.cluster.engine, context.store, out.key
            ),
            workers,
            outputs=lambda name: [name],
            reader=partial(AudioSlices, forward.selection),
            part_frames=self.config.part_frames,
        )
        check_written(out, codebooks, self.training)
        return Seal()


def check_written(out: ArtifactWriter, codebooks: Artifact, training: TrainingSet) -> None:
    """Check all labels that were written, and store their counts.

    Raises:
        ModelError: labels are not of these codebooks, or a model can learn nothing from them.
        ArtifactError: an utterance has no labels, or not one per frame.
    """
    check = LabelCheck(read_codebooks(codebooks))
    problems: list[str] = []
    # Both are in utterance-id order, so neither has to be in memory as a whole.
    for row, expected in zip_longest(stream_labels(out.written()), _frames(training)):
        if row is not None:
            check.add(row)
        labelled = None if row is None else (row.utterance_id, row.num_frames)
        if labelled != expected:
            problems.append(f"labels are of {labelled}, expected {expected}")
    if problems:
        raise ArtifactError.of_all(
            f"{out.key.prefix} does not fit the corpus (utterance, frames); extract again in a new "
            f"root:",
            problems,
        )
    check.check_counts()
    counts = {"counts": [count.tolist() for count in check.counts]}
    out.put_file(HISTOGRAM_NAME, canonical_json(counts).encode())


def _frames(training: TrainingSet) -> Iterator[tuple[str, int]]:
    """Every utterance to be labelled, with its number of frames."""
    index = frame_index(training).select(["utterance_id", "num_frames"])
    for batch in index.to_batches(max_chunksize=10_000):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
