"""Fine-tuned models with random weights, and recordings for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile as sf

from gmp_atl_dist.models.emotion import EmotionModel
from gmp_atl_dist.models.hubert import build_random
from gmp_atl_dist.models.seeded import seeded
from gmp_atl_dist.models.source import model_to_files
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.layout import claim_layout
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.writer import ArtifactWriter

EMOTIONS = ("calm", "cross", "glad")


def classifier_files(size: str = "tiny", seed: int = 0) -> dict[str, bytes]:
    """The files of a classifier of :data:`EMOTIONS`."""
    with seeded(seed):  # the head's weights come from the global random state
        made = EmotionModel.from_backbone(build_random(size, seed), EMOTIONS, embedding_dim=8)
    return model_to_files(made)


def write_classifier(folder: Path) -> Path:
    """A tiny one in a folder."""
    folder.mkdir(parents=True)
    for name, data in classifier_files().items():
        (folder / name).write_bytes(data)
    return folder


def put_classifier(root: Path, size: str = "tiny") -> Artifact:
    """One as a finetune artefact of a root."""
    store = Store.open(str(root))
    claim_layout(store)
    out = ArtifactWriter(store, ArtifactKey.of("finetune", 1, {}, {}))
    for name, data in classifier_files(size).items():
        out.put_file(name, data)
    return out.seal(version=1, science={}, inputs={})


def write_noise(path: Path, seconds: float, seed: int = 0, rate_hz: int = 16_000) -> Path:
    """A recording of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = 0.1 * np.random.default_rng(seed).normal(size=round(seconds * rate_hz))
    sf.write(path, noise, rate_hz)
    return path
