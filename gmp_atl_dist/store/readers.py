"""Typed views of artefacts: utterances, audio, learning curves.

Everything that reads a part goes through here, or through ``features.py``, ``codebooks.py`` and ``labels.py``
beside it, so that the layout of a part is known in one place besides the stage that writes it.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.records import (
    AUDIO_SCHEMA,
    CURVE_SCHEMA,
    UTTERANCE_SCHEMA,
    StoredUtterance,
    utterances_from_table,
)
from gmp_atl_dist.store.artifact import Artifact

INDEX_PART = "utterances"
_AUDIO_CACHE_BYTES = 512 << 20
_UTTERANCE_LISTS = 4
_UTTERANCES: OrderedDict[tuple[str, str], tuple[StoredUtterance, ...]] = OrderedDict()


def read_utterances(corpus: Artifact) -> tuple[StoredUtterance, ...]:
    """Every utterance of an ``ingest`` artefact, in utterance-id order."""
    key = (corpus.store.uri, corpus.identity)
    # Sealed artefacts never change, and every stage asks for the same few lists.
    if key not in _UTTERANCES:
        table = corpus.read_part(INDEX_PART, UTTERANCE_SCHEMA)
        _UTTERANCES[key] = utterances_from_table(table)
        while len(_UTTERANCES) > _UTTERANCE_LISTS:
            _UTTERANCES.popitem(last=False)
    return _UTTERANCES[key]


def read_emotions(corpus: Artifact) -> tuple[str, ...]:
    """The fixed class list of an ``ingest`` artefact, in order."""
    return tuple(json.loads(corpus.manifest.notes["emotions"]))


def audio_part_names(corpus: Artifact) -> tuple[str, ...]:
    return tuple(name for name in corpus.part_names if name != INDEX_PART)


@dataclass(frozen=True)
class AudioPart:
    """One part of ``ingest`` in memory; samples are views of its buffer."""

    utterances: tuple[StoredUtterance, ...]
    pcm16: pa.BinaryArray

    def samples(self, row: int) -> np.ndarray:
        """int16 samples [num_samples] of the utterance in ``row``; read-only."""
        samples = np.frombuffer(self.pcm16[row].as_buffer(), dtype="<i2")
        # Arrow hands out memory of its own as writable; others read the same part.
        samples.flags.writeable = False
        return samples


def read_audio_part(corpus: Artifact, name: str) -> AudioPart:
    table = corpus.read_part(name, AUDIO_SCHEMA)
    pcm16 = table["pcm16"].combine_chunks()
    if isinstance(pcm16, pa.ChunkedArray):
        pcm16 = pcm16.chunk(0)
    return AudioPart(utterances_from_table(table), pcm16)


class InPart(Protocol):
    """Where an utterance's audio lies: a StoredUtterance, or a row of the index."""

    @property
    def utterance_id(self) -> str: ...
    @property
    def part(self) -> str: ...
    @property
    def row(self) -> int: ...
    @property
    def num_samples(self) -> int: ...


class AudioReader:
    """Samples by utterance; the last parts used stay in memory up to a budget."""

    def __init__(self, corpus: Artifact, cache_bytes: int = _AUDIO_CACHE_BYTES) -> None:
        self._corpus = corpus
        self._cache_bytes = cache_bytes
        self._parts: OrderedDict[str, AudioPart] = OrderedDict()

    def samples(self, utterance: InPart) -> np.ndarray:
        """int16 samples [num_samples]; read-only."""
        part = self._parts.get(utterance.part)
        if part is None:
            part = read_audio_part(self._corpus, utterance.part)
            self._parts[utterance.part] = part
            while len(self._parts) > 1 and self._held_bytes() > self._cache_bytes:
                self._parts.popitem(last=False)
        self._parts.move_to_end(utterance.part)
        samples = part.samples(utterance.row)
        if len(samples) != utterance.num_samples:
            raise ArtifactError(
                f"utterance {utterance.utterance_id!r} has {len(samples)} samples in part "
                f"{utterance.part!r}, expected {utterance.num_samples}; run gmp-atl verify"
            )
        return samples

    def _held_bytes(self) -> int:
        return sum(part.pcm16.nbytes for part in self._parts.values())


def read_curves(artifact: Artifact) -> dict[str, list[tuple[int, float]]]:
    """Learning curves of a trained stage: (step, value) by measure."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in artifact.read_part("curves", CURVE_SCHEMA).to_pylist():
        curves.setdefault(row["name"], []).append((row["step"], row["value"]))
    return curves


def pcm16_sha256(pcm16: np.ndarray) -> str:
    """Digest of int16 samples, little-endian whatever the machine."""
    return hashlib.sha256(pcm16.astype("<i2", copy=False).tobytes()).hexdigest()
