"""A corpus of silence as ``ingest`` leaves it, and what extracting it needs."""

from __future__ import annotations

import json
import os

import numpy as np
import pyarrow as pa

from benchmarks.inputs.stages import sealed_of_kind
from benchmarks.inputs.stand_in import stand_in
from gmp_atl_dist.config import StreamWorkersConfig
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.inference.audio_slices import AudioSelection
from gmp_atl_dist.inference.extractor import ExtractorArgument, ForwardArgument
from gmp_atl_dist.records import AUDIO_SCHEMA, UTTERANCE_SCHEMA
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.readers import INDEX_PART
from gmp_atl_dist.store.training_set import TrainingSet
from gmp_atl_dist.store.writer import ArtifactWriter

PART_UTTERANCES = 120
LAYERS = (6, 9)
FOLD = Fold("scale", train_speakers=tuple(f"s{i:02d}" for i in range(50)), test_speakers=("test",))
_DIM = 8
_WINDOW_FRAMES = 3000
_CONTEXT_FRAMES = 250


def write_corpus(uri: str, size: int, *, samples: int) -> None:
    """``size`` utterances of ``samples`` zeros each: parts of audio, and the index of all."""
    out = ArtifactWriter(Store.open(uri), ArtifactKey("ingest", "0" * 64))
    pcm16 = np.zeros(samples, dtype="<i2").tobytes()
    speakers = FOLD.train_speakers
    indexes: list[pa.Table] = []
    for part, first in enumerate(range(0, size, PART_UTTERANCES)):
        count = min(PART_UTTERANCES, size - first)
        columns = {
            "utterance_id": [f"utterance-{i:08d}" for i in range(first, first + count)],
            "speaker": [speakers[(first + i) % len(speakers)] for i in range(count)],
            "gender": ["female"] * count,
            "emotion": ["neutral"] * count,
            "session": [""] * count,
            "split": [""] * count,
            "num_samples": [samples] * count,
            "audio_sha256": [os.urandom(32).hex() for _ in range(count)],
            "part": [f"part-{part:05d}"] * count,
            "row": list(range(count)),
        }
        indexes.append(pa.table(columns, schema=UTTERANCE_SCHEMA))
        audio = pa.table({**columns, "pcm16": [pcm16] * count}, schema=AUDIO_SCHEMA)
        out.put_part(f"part-{part:05d}", audio, row_group_rows=64)
    out.put_part(INDEX_PART, pa.concat_tables(indexes))
    out.seal(version=1, science={}, inputs={}, notes={"emotions": '["neutral"]'})


def corpus_of(store: Store) -> Artifact:
    return sealed_of_kind(store, "ingest")


def part_task(name: str, part: int, utterances: int = PART_UTTERANCES) -> Task:
    """A task over the first utterances of a part."""
    return Task(name, json.dumps([[f"part-{part:05d}", 0, utterances]]))


def extractor_argument(
    store: Store, name: str, workers: StreamWorkersConfig, sleep: float = 0.0
) -> ExtractorArgument:
    """What extracts the corpus of ``store`` with a model that sleeps ``sleep`` s per second of audio."""
    corpus = corpus_of(store)
    speakers = AudioSelection(TrainingSet(corpus, FOLD.training_speakers()))
    load = stand_in(_DIM, sleep)
    forward = ForwardArgument(
        speakers, corpus, load, LAYERS, _WINDOW_FRAMES, _CONTEXT_FRAMES, workers.batch_s
    )
    return ExtractorArgument(forward, "none", store, ArtifactKey("extract", name))
