"""Nearest centroids of frames: of stored features, or of features as they are computed.

Shape suffixes: T frames, D hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gmp_atl_dist.clustering.kmeans import Assigner
from gmp_atl_dist.device import pin_faiss_threads
from gmp_atl_dist.inference.extractor import ForwardArgument, audio_seconds
from gmp_atl_dist.records import EVERYBODY, LABEL_SCHEMA
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.store.artifact import (
    Artifact,
    ArtifactKey,
    ArtifactWriter,
    Receipt,
    receipts_json,
)
from gmp_atl_dist.store.features import UtteranceFrames, read_features
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.readers import Codebook, read_codebooks, read_utterances


class Codebooks:
    """Assigns labels with all codebooks of an artefact."""

    def __init__(self, codebooks: Artifact) -> None:
        pin_faiss_threads()
        self._books = [(book, Assigner(book.centroids_KD)) for book in read_codebooks(codebooks)]
        self.layers = tuple(sorted({book.layer for book, _ in self._books}))

    def rows(
        self, layer: int, utterances: Iterable[UtteranceFrames], genders: Mapping[str, str]
    ) -> list[dict[str, object]]:
        """Rows of ``LABEL_SCHEMA`` for one layer's features."""
        found: list[dict[str, object]] = []
        books = [pair for pair in self._books if pair[0].layer == layer]
        for utterance in utterances:
            x_TD = utterance.frames_TD.astype(np.float32)
            for book, assigner in books:
                if _speaks_for(book, genders[utterance.utterance_id]):
                    ids = assigner.assign(x_TD) + np.int32(book.offset)
                    found.append(
                        {
                            "utterance_id": utterance.utterance_id,
                            "scale": book.scale,
                            "num_frames": len(ids),
                            "labels": ids.astype("<i4").tobytes(),
                        }
                    )
        return found


def _speaks_for(book: Codebook, gender: str) -> bool:
    return book.group in (EVERYBODY, gender)


def put_labels(
    out: ArtifactWriter, name: str, rows: list[dict[str, object]], frames: int, audio_s: float = 0.0
) -> Receipt:
    """Write a part of labels: by utterance id, then scale."""
    rows.sort(key=lambda r: (str(r["utterance_id"]), r["scale"]))
    table = pa.Table.from_pylist(rows, schema=LABEL_SCHEMA)
    return out.put_part(name, table, frames=frames, audio_s=audio_s)


@dataclass(frozen=True)
class LabellerArgument:
    corpus: Artifact
    features: Artifact
    codebooks: Artifact
    store: Store
    key: ArtifactKey


class Labeller:
    """Labels of one part of stored features, all scales."""

    def __init__(self, argument: LabellerArgument) -> None:
        self._argument = argument
        self._out = ArtifactWriter(argument.store, argument.key)
        self._genders = {u.utterance_id: u.gender for u in read_utterances(argument.corpus)}
        self._codebooks = Codebooks(argument.codebooks)

    def __call__(self, task: Task) -> str:
        rows: list[dict[str, object]] = []
        frames = 0
        for layer in self._codebooks.layers:
            utterances = list(read_features(self._argument.features, task.name, layer))
            frames += sum(len(u.frames_TD) for u in utterances)
            rows += self._codebooks.rows(layer, utterances, self._genders)
        return receipts_json([put_labels(self._out, task.name, rows, frames)])


@dataclass(frozen=True)
class FusedLabellerArgument:
    forward: ForwardArgument
    codebooks: Artifact
    store: Store
    key: ArtifactKey


class FusedLabeller:
    """Labels of one part of the corpus; its features are never stored."""

    def __init__(self, argument: FusedLabellerArgument) -> None:
        self._out = ArtifactWriter(argument.store, argument.key)
        self._forward = argument.forward.build()
        self._codebooks = Codebooks(argument.codebooks)

    def compute(self, task: Task, table: pa.Table) -> Callable[[], str]:
        features = self._forward(table)
        ids, genders = table["utterance_id"].to_pylist(), table["gender"].to_pylist()
        by_id = dict(zip(ids, genders, strict=True))
        rows: list[dict[str, object]] = []
        for layer in self._codebooks.layers:
            rows += self._codebooks.rows(layer, features[layer], by_id)
        frames = sum(len(u.frames_TD) for layer in features.values() for u in layer)
        audio_s = audio_seconds(table)
        return lambda: receipts_json([put_labels(self._out, task.name, rows, frames, audio_s)])
