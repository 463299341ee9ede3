"""Stage ``label``: the nearest centroid of every frame and scale, the pseudo-labels.

Counts of every label are kept, because empty or one-sided labels train "successfully": a scale of
which a single label is left stops the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from gmp_atl_dist.config import Json
from gmp_atl_dist.device import pin_faiss_threads
from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.records import LABEL_SCHEMA
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.stages.base import Context, Pending, Seal, Stage, map_parts, sealed
from gmp_atl_dist.stages.cluster import ALL
from gmp_atl_dist.store.artifact import Artifact, ArtifactKey, ArtifactWriter, receipts_json
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.readers import (
    Codebook,
    feature_source_parts,
    label_counts,
    read_codebooks,
    read_features,
    read_labels,
    read_utterances,
)


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
        features, codebooks = sealed(self.features), sealed(self.codebooks)
        layer = read_codebooks(codebooks)[0].layer
        map_parts(
            context,
            out,
            self.label,
            [Task(name) for name in feature_source_parts(features, layer)],
            _Labeller,
            _LabellerArgument(self.corpus, features, codebooks, context.store, out.key),
            context.settings.label,
            outputs=lambda name: [name],
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


@dataclass(frozen=True)
class _LabellerArgument:
    corpus: Artifact
    features: Artifact
    codebooks: Artifact
    store: Store
    key: ArtifactKey


class _Labeller:
    """Labels of one part, all scales."""

    def __init__(self, argument: _LabellerArgument) -> None:
        from gmp_atl_dist.clustering.kmeans import Assigner

        pin_faiss_threads()
        self._argument = argument
        self._out = ArtifactWriter(argument.store, argument.key)
        self._gender = {u.utterance_id: u.gender for u in read_utterances(argument.corpus)}
        self._books = [
            (book, Assigner(book.centroids_KD)) for book in read_codebooks(argument.codebooks)
        ]

    def __call__(self, task: Task) -> str:
        rows: list[dict[str, object]] = []
        frames = 0
        for layer in sorted({book.layer for book, _ in self._books}):
            for utterance in read_features(self._argument.features, task.name, layer):
                frames += len(utterance.frames_TD)
                x_TD = utterance.frames_TD.astype(np.float32)
                for book, assigner in self._books:
                    if book.layer == layer and self._speaks_for(book, utterance.utterance_id):
                        ids = assigner.assign(x_TD) + np.int32(book.offset)
                        rows.append(
                            {
                                "utterance_id": utterance.utterance_id,
                                "scale": book.scale,
                                "num_frames": len(ids),
                                "labels": ids.astype("<i4").tobytes(),
                            }
                        )
        rows.sort(key=lambda r: (str(r["utterance_id"]), r["scale"]))
        table = pa.Table.from_pylist(rows, schema=LABEL_SCHEMA)
        return receipts_json([self._out.put_part(task.name, table, frames=frames)])

    def _speaks_for(self, book: Codebook, utterance_id: str) -> bool:
        return book.group in (ALL, self._gender[utterance_id])
