"""Structured vectors for k-means, in memory and as stored features of a corpus that has no audio."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gmp_atl_dist.audio import FRAME_HOP_SAMPLES, MIN_SAMPLES
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.records import StoredUtterance, utterances_to_table
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.features import UtteranceFrames, put_features
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.readers import INDEX_PART
from gmp_atl_dist.store.writer import ArtifactWriter

DIM = 768
STORED_LAYER = 9
STORED_FOLD = Fold("bench", ("a",), ("b",))
_LATENT = 64
_FRAMES_PER_UTTERANCE = 250
_UTTERANCES_PER_PART = 120


def structured(frames: int, seed: int = 0) -> np.ndarray:
    """float32 [frames, 768] near a curved surface of 64 dimensions, with noise; exact in fp16."""
    rng = np.random.default_rng(0)
    projection = rng.normal(size=(_LATENT, DIM)).astype(np.float32) / 8
    rng = np.random.default_rng([1, seed])
    latent = np.tanh(rng.normal(size=(frames, _LATENT)).astype(np.float32))
    noise = rng.standard_normal((frames, DIM), dtype=np.float32)
    return (latent @ projection + 0.1 * noise).astype(np.float16).astype(np.float32)


def store_structured(root: Path, frames: int) -> tuple[Artifact, Artifact]:
    """A corpus and its features, in parts of 30,000 frames; about ``frames`` of them."""
    store = Store.open(str(root))
    count = max(1, frames // _FRAMES_PER_UTTERANCE)
    samples = (_FRAMES_PER_UTTERANCE - 1) * FRAME_HOP_SAMPLES + MIN_SAMPLES
    utterances = [
        StoredUtterance(f"u{i:08d}", "a", "female", "sad", "", "", samples, "", "none", i)
        for i in range(count)
    ]
    corpus = ArtifactWriter(store, ArtifactKey("ingest", "c" * 64))
    corpus.put_part(INDEX_PART, utterances_to_table(utterances))
    features = ArtifactWriter(store, ArtifactKey("extract", "f" * 64))
    for number, start in enumerate(range(0, count, _UTTERANCES_PER_PART)):
        some = utterances[start : start + _UTTERANCES_PER_PART]
        x_MD = structured(len(some) * _FRAMES_PER_UTTERANCE, seed=number).astype(np.float16)
        rows = [
            UtteranceFrames(u.utterance_id, x_TD)
            for u, x_TD in zip(some, np.split(x_MD, len(some)), strict=True)
        ]
        put_features(features, f"part-{number:05d}", STORED_LAYER, rows, audio_s=0.0)
    return (
        corpus.seal(version=1, science={}, inputs={}, notes={"emotions": '["sad"]'}),
        features.seal(version=1, science={}, inputs={}),
    )
