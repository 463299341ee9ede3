"""Synthetic speech with the lengths of IEMOCAP or of LibriSpeech, as tables and as sealed artefacts.

Nothing is downloaded and no Ray is started: a corpus, a backbone with random weights and random labels are
written as the stages leave them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from gmp_atl_dist.audio import SAMPLE_RATE_HZ, num_frames
from gmp_atl_dist.corpora.voices import MANNERS, act, draw_speaker, speak
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.models.hubert import Hubert
from gmp_atl_dist.models.source import model_to_files
from gmp_atl_dist.records import AUDIO_SCHEMA, UTTERANCE_SCHEMA
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.codebooks import Codebook
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.labels import UtteranceLabels, put_labels
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.readers import INDEX_PART
from gmp_atl_dist.store.training_set import TrainingSet
from gmp_atl_dist.store.writer import ArtifactWriter

Lengths = Literal["iemocap", "librispeech"]
FOLD = Fold("gpu", train_speakers=("a", "b"), test_speakers=("test",))
_POOL_S = 4.0
_VOICES = 8
_IEMOCAP = (1.302, 0.621)
"""Mean and standard deviation of ln(seconds): mean 4.46 s and standard deviation 3.06 s, as published."""
_SHORTEST_S, _LONGEST_S = 0.6, 34.0


def lengths_s(kind: Lengths, total_s: float, seed: int = 0) -> list[float]:
    """Lengths of recordings that last about ``total_s`` together.

    ``iemocap`` is log-normal with a mean of 4.5 s. ``librispeech`` has a mean of 12.3 s: four fifths
    between 11 and 16.5 s, the rest shorter, as its readings were cut.
    """
    rng = np.random.default_rng([2, seed])
    lengths: list[float] = []
    while sum(lengths) < total_s:
        if kind == "iemocap":
            drawn = float(np.clip(rng.lognormal(*_IEMOCAP), _SHORTEST_S, _LONGEST_S))
        else:
            drawn = float(rng.uniform(11, 16.5) if rng.random() < 0.8 else rng.uniform(2, 11))
        lengths.append(drawn)
    return lengths


@lru_cache(maxsize=1)
def _pool() -> np.ndarray:
    """int16 [voices, samples]: a few seconds of each of several synthetic voices."""
    rng = np.random.default_rng(3)
    manners = list(MANNERS.values())
    rows = [
        speak(
            int(_POOL_S * SAMPLE_RATE_HZ),
            draw_speaker(rng, "FM"[i % 2]),
            act(rng, manners[i % len(manners)]),
            rng,
        )
        for i in range(_VOICES)
    ]
    return np.clip(np.rint(np.stack(rows) * 32768), -32768, 32767).astype("<i2")


def recordings(kind: Lengths, total_s: float, seed: int = 0) -> pa.Table:
    """About ``total_s`` of speech as a worker of ``extract`` is given it; no two recordings are the same.

    Each is made of pieces of a pool of voices, with gains of their own.
    """
    rng = np.random.default_rng([4, seed])
    pool = _pool()
    samples: list[bytes] = []
    counts: list[int] = []
    for seconds in lengths_s(kind, total_s, seed):
        count = int(seconds * SAMPLE_RATE_HZ)
        pieces, held = [], 0
        while held < count:
            voice, first = rng.integers(len(pool)), rng.integers(pool.shape[1] // 2)
            piece = pool[voice, first:] * rng.uniform(0.4, 1.6)
            pieces.append(np.clip(np.rint(piece), -32768, 32767).astype("<i2"))
            held += len(piece)
        samples.append(np.concatenate(pieces)[:count].tobytes())
        counts.append(count)
    return pa.table(
        {
            "utterance_id": [f"u{seed:02d}-{i:06d}" for i in range(len(counts))],
            "gender": [("female", "male")[i % 2] for i in range(len(counts))],
            "num_samples": pa.array(counts, pa.int64()),
            "pcm16": samples,
        }
    )


def audio_s(table: pa.Table) -> float:
    """Seconds of audio in such a table."""
    return sum(table["num_samples"].to_pylist()) / SAMPLE_RATE_HZ


def hubert(size: str) -> Hubert:
    """A HuBERT of a named size with random weights, in ``eval()``; the same in every process."""
    model = Hubert.build_random(size, seed=0)
    assert isinstance(model, Hubert)
    return model.eval()


@dataclass(frozen=True)
class Stored:
    """What a training needs, sealed in a folder."""

    store: Store
    training: TrainingSet
    backbone: Artifact
    labels: Artifact
    books: tuple[Codebook, ...]


def store_training(
    folder: Path, size: str, total_s: float, ks: Sequence[int] = (50, 500)
) -> Stored:
    """A corpus with lengths of IEMOCAP, a random backbone, and labels drawn at random."""
    store = Store.open(str(folder))
    table = recordings("iemocap", total_s)
    corpus = _seal_corpus(store, table)
    backbone = ArtifactWriter(store, ArtifactKey("backbone", "b" * 64))
    for name, data in model_to_files(hubert(size)).items():
        backbone.put_file(name, data)
    books = tuple(
        Codebook(i, 1, "all", 0, np.arange(k, dtype=np.float32)[:, None]) for i, k in enumerate(ks)
    )
    rng = np.random.default_rng(5)
    names = tuple(book.fingerprint for book in books)
    rows = [
        UtteranceLabels(
            utterance_id,
            names,
            tuple(rng.integers(0, k, num_frames(samples)).astype("<i2") for k in ks),
        )
        for utterance_id, samples in zip(
            table["utterance_id"].to_pylist(), table["num_samples"].to_pylist(), strict=True
        )
    ]
    labels = ArtifactWriter(store, ArtifactKey("label", "1" * 64))
    put_labels(labels, "part", rows)
    return Stored(
        store,
        TrainingSet(corpus, FOLD.training_speakers()),
        backbone.seal(version=1, science={}, inputs={}),
        labels.seal(version=1, science={}, inputs={}),
        books,
    )


def _seal_corpus(store: Store, table: pa.Table) -> Artifact:
    count = table.num_rows
    speakers = FOLD.train_speakers
    columns = {
        "utterance_id": table["utterance_id"].to_pylist(),
        "speaker": [speakers[i % len(speakers)] for i in range(count)],
        "gender": table["gender"].to_pylist(),
        "emotion": ["neutral"] * count,
        "session": [""] * count,
        "split": [""] * count,
        "num_samples": table["num_samples"].to_pylist(),
        "audio_sha256": [f"{i:064x}" for i in range(count)],
        "part": ["part-00000"] * count,
        "row": list(range(count)),
    }
    out = ArtifactWriter(store, ArtifactKey("ingest", "0" * 64))
    pcm16 = table["pcm16"].to_pylist()
    out.put_part(
        "part-00000", pa.table({**columns, "pcm16": pcm16}, schema=AUDIO_SCHEMA), row_group_rows=64
    )
    out.put_part(INDEX_PART, pa.table(columns, schema=UTTERANCE_SCHEMA))
    return out.seal(version=1, science={}, inputs={}, notes={"emotions": '["neutral"]'})
