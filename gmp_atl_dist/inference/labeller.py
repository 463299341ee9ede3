"""Pseudo-labels, the nearest centroids of frames: of stored features, or of features computed for them.

Shape suffixes: M frames of several utterances, D hidden.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gmp_atl_dist.audio import num_frames
from gmp_atl_dist.clustering.assignment import Assigner, make_assigner, nearest_ids
from gmp_atl_dist.clustering.engines import EngineChoice, chosen_engine
from gmp_atl_dist.clustering.state import Metric
from gmp_atl_dist.config import WorkersConfig
from gmp_atl_dist.device import has_gpu, pin_faiss_threads, torch_device
from gmp_atl_dist.errors import ArtifactError, ModelError
from gmp_atl_dist.inference.device_labels import DeviceLabels, LabelledLayer, StartedLabels
from gmp_atl_dist.inference.extractor import ForwardArgument, audio_seconds
from gmp_atl_dist.partition import greedy_batches
from gmp_atl_dist.runtime import DeviceWork, Task
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.codebooks import Codebook, read_codebooks
from gmp_atl_dist.store.features import UtteranceFrames, read_features
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.genders import training_index
from gmp_atl_dist.store.index import index_rows
from gmp_atl_dist.store.labels import UtteranceLabels, narrow, put_labels
from gmp_atl_dist.store.manifest import ArtifactKey, receipts_json
from gmp_atl_dist.store.training_set import TrainingSet
from gmp_atl_dist.store.writer import ArtifactWriter


class Codebooks:
    """Assigns labels with all codebooks of an artefact."""

    def __init__(self, codebooks: Artifact, gpus: int = 0, engine: EngineChoice = "auto") -> None:
        pin_faiss_threads()
        self._prefix = codebooks.key.prefix
        self._books = read_codebooks(codebooks)
        self._assigners = [
            make_assigner(book.centroids_KD, _metric(book), gpus, engine) for book in self._books
        ]
        self._ends: dict[int, int] = {}
        for book in self._books:
            self._ends[book.scale] = max(self._ends.get(book.scale, 0), book.end)
        self.layers = tuple(sorted({book.layer for book in self._books}))

    def rows(
        self, features: Mapping[int, Sequence[UtteranceFrames]], genders: Mapping[str, str]
    ) -> list[UtteranceLabels]:
        """The labels of every utterance, from the features of each layer; in the order of the first layer.

        Raises:
            ModelError: a codebook is of another layer or dimension than the features; it is named.
        """
        labelled: list[Iterable[tuple[str, np.ndarray]]] = []
        for book, assigner in zip(self._books, self._assigners, strict=True):
            if book.layer not in features:
                raise ModelError(
                    f"codebook {book.fingerprint[:12]} in {self._prefix} is of layer {book.layer}, "
                    f"the features of layers {sorted(features)}; extract that layer, or use a "
                    f"codebook of one of these"
                )
            utterances = [
                u for u in features[book.layer] if book.applies_to(genders[u.utterance_id])
            ]
            labelled.append(_assigned(book, assigner, utterances))
        return self._rows(labelled, [u.utterance_id for u in next(iter(features.values()))])

    def on_device(self, engine: EngineChoice) -> DeviceLabels:
        """The same codebooks for frames that are on this process's device already."""
        books = [
            LabelledLayer(book.fingerprint[:12], book.layer, _metric(book), book.centroids_KD)
            for book in self._books
        ]
        return DeviceLabels(books, chosen_engine(engine, int(has_gpu())), torch_device())

    def rows_from_device(
        self, batches: Iterable[StartedLabels], genders: Mapping[str, str], order: Sequence[str]
    ) -> list[UtteranceLabels]:
        """The labels of the utterances of ``order``, from what :meth:`on_device` gave.

        Raises:
            ModelError: a feature is not finite; names utterance, layer and frame.
        """
        found = {name: labels_CT for batch in batches for name, labels_CT in batch.utterances()}
        labelled = [
            [(name, found[name][number]) for name in order if book.applies_to(genders[name])]
            for number, book in enumerate(self._books)
        ]
        return self._rows(labelled, order)

    def _rows(
        self, labelled: Sequence[Iterable[tuple[str, np.ndarray]]], order: Sequence[str]
    ) -> list[UtteranceLabels]:
        """Rows from the ids of each codebook for the utterances that it applies to."""
        labels: dict[str, dict[int, tuple[str, np.ndarray]]] = {}
        for book, utterances in zip(self._books, labelled, strict=True):
            for utterance_id, ids in utterances:
                narrowed = narrow(ids + book.offset, self._ends[book.scale])
                labels.setdefault(utterance_id, {})[book.scale] = (book.fingerprint, narrowed)
        return [self._row(utterance_id, labels.get(utterance_id, {})) for utterance_id in order]

    def _row(
        self, utterance_id: str, scales: Mapping[int, tuple[str, np.ndarray]]
    ) -> UtteranceLabels:
        by_scale = [scales[scale] for scale in sorted(self._ends) if scale in scales]
        lengths = {len(ids) for _, ids in by_scale}
        if len(by_scale) != len(self._ends) or len(lengths) != 1:
            raise ArtifactError(
                f"utterance {utterance_id!r} has labels of {len(by_scale)} scales, {sorted(lengths)} "
                f"frames each, expected {len(self._ends)} scales of one length; extract again in a "
                f"new root"
            )
        return UtteranceLabels(
            utterance_id, tuple(name for name, _ in by_scale), tuple(ids for _, ids in by_scale)
        )


def _metric(book: Codebook) -> Metric:
    return "cosine" if book.metric == "cosine" else "euclidean"


def _assigned(
    book: Codebook, assigner: Assigner, utterances: Iterable[UtteranceFrames]
) -> Iterable[tuple[str, np.ndarray]]:
    """Utterances with their labels. They are assigned in batches, because engines are slow with few rows."""
    for batch in greedy_batches(utterances, assigner.block_rows, lambda u: len(u.frames_TD)):
        for u in batch:
            if u.frames_TD.shape[1] != assigner.dim:
                raise ModelError(
                    f"codebook {book.fingerprint[:12]} has centroids of {assigner.dim} values, "
                    f"features of utterance {u.utterance_id!r}, layer {book.layer}, have "
                    f"{u.frames_TD.shape[1]}; it is of another model"
                )
        x_MD = np.concatenate([u.frames_TD for u in batch])
        ids_M = nearest_ids(assigner, x_MD)
        ends = np.cumsum([len(u.frames_TD) for u in batch])[:-1]
        for u, ids_T in zip(batch, np.split(ids_M, ends), strict=True):
            if len(ids_T) and ids_T.min() < 0:
                raise ArtifactError(
                    f"features of utterance {u.utterance_id!r}, layer {book.layer}, are not finite at "
                    f"frame {int(np.argmin(ids_T))}; run gmp-atl verify, and extract again in a new root"
                )
            yield u.utterance_id, ids_T


@dataclass(frozen=True)
class LabellerArgument:
    training: TrainingSet
    features: Artifact
    codebooks: Artifact
    workers: WorkersConfig
    engine: EngineChoice
    store: Store
    key: ArtifactKey


class Labeller:
    """Labels one part of stored features, with all scales."""

    def __init__(self, argument: LabellerArgument) -> None:
        self._argument = argument
        self._out = ArtifactWriter(argument.store, argument.key)
        self._index = training_index(argument.training)
        gpus = math.ceil(argument.workers.gpus)
        self._codebooks = Codebooks(argument.codebooks, gpus, argument.engine)

    def __call__(self, task: Task) -> str:
        features = {
            layer: list(read_features(self._argument.features, task.name, layer))
            for layer in self._codebooks.layers
        }
        rows = self._codebooks.rows(features, self._genders(features))
        return receipts_json([put_labels(self._out, task.name, rows)])

    def _genders(self, features: Mapping[int, Sequence[UtteranceFrames]]) -> dict[str, str]:
        """The gender of every utterance.

        Raises:
            CorpusError: an utterance is not of a training speaker.
            ArtifactError: an utterance has not as many frames as its audio gives.
        """
        genders: dict[str, str] = {}
        ids = sorted({u.utterance_id for layer in features.values() for u in layer})
        rows = index_rows(self._index, ids)
        for layer, utterances in features.items():
            for u in utterances:
                row = rows.get(u.utterance_id)
                self._argument.training.training_speakers.check(
                    u.utterance_id, None if row is None else row.speaker
                )
                if row is None or len(u.frames_TD) != num_frames(row.num_samples):
                    raise ArtifactError(
                        f"utterance {u.utterance_id!r} has {len(u.frames_TD)} frames of layer "
                        f"{layer} in {self._argument.features.key.prefix}, its audio gives "
                        f"{num_frames(row.num_samples) if row else 'none'}; extract again in a new "
                        f"root"
                    )
                genders[u.utterance_id] = row.gender
        return genders


@dataclass(frozen=True)
class FusedLabellerArgument:
    """``engine`` finds nearest centroids on a GPU; on a CPU it is FAISS."""

    forward: ForwardArgument
    codebooks: Artifact
    engine: EngineChoice
    store: Store
    key: ArtifactKey


class FusedLabeller:
    """Labels one part of the corpus. Its features are not stored.

    On a GPU they do not leave it: nearest centroids are found there, and the next part is computed while
    labels are stored.
    """

    def __init__(self, argument: FusedLabellerArgument) -> None:
        self._out = ArtifactWriter(argument.store, argument.key)
        self._forward = argument.forward.build()
        self._codebooks = Codebooks(argument.codebooks)
        self._on_device = self._codebooks.on_device(argument.engine) if has_gpu() else None

    def compute(self, task: Task, table: pa.Table) -> Callable[[], str]:
        ids, audio_s = table["utterance_id"].to_pylist(), audio_seconds(table)
        genders = dict(zip(ids, table["gender"].to_pylist(), strict=True))

        def put(rows: list[UtteranceLabels]) -> str:
            return receipts_json([put_labels(self._out, task.name, rows, audio_s)])

        if self._on_device is None:
            rows = self._codebooks.rows(self._forward(table), genders)
            return lambda: put(rows)
        batches = self._forward.start_batches(table, self._on_device)
        return DeviceWork(
            batches.wait, lambda: put(self._codebooks.rows_from_device(batches(), genders, ids))
        )
