"""Two labelled corpora and one unlabelled one, made of synthetic voices, and a short run over them.

It has no assertion: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.config.file import parse_config
from gmp_atl_dist.corpora.synth import write_synthetic_corpus

EMOTIONS = ["angry", "happy", "neutral", "sad"]
NAMES = ("acted", "read", "talks")


def write_corpora(folder: Path) -> None:
    """``acted``, ``read`` and ``talks`` below ``folder``, each of 40 short utterances of other voices."""
    for seed, name in enumerate(NAMES):
        write_synthetic_corpus(
            folder / name, seed=seed, utterances_per_speaker_and_emotion=1, seconds=(0.3, 0.6)
        )


def mixed_document(folder: Path, root: Path | str) -> dict[str, dict[str, object]]:
    """A run of two labelled sources and an unlabelled one, every stage as short as can be."""
    short = {"batch_s": 3.0, "lr": 1e-3, "dropout": 0.0}
    common = {"adapter": "iemocap", "part_audio_s": 5}
    document: dict[str, object] = {
        "corpus": {"emotions": EMOTIONS},
        "corpora": [
            {**common, "name": "acted", "language": "none", "licence": "CC0-1.0"},
            {**common, "name": "read"},
            {"name": "talks", "role": "unlabelled", "part_audio_s": 5},
        ],
        "folds": {"by": "corpus"},
        "model": {"source": "random:tiny"},
        "warmup": {**short, "epochs": 1},
        "extract": {"layers": [2, 3]},
        "cluster": {"scales": [{"layer": 2, "k": 5}, {"layer": 3, "k": 7}], "iterations": 5},
        "retrain": {**short, "steps": 2, "projection_dim": 16, "unlabelled_share": 0.5},
        "finetune": {**short, "epochs": 1, "embedding_dim": 16},
        "evaluate": {"bootstrap_samples": 50},
        "runtime": {
            "root": str(root),
            "corpora": {name: str(folder / name) for name in NAMES},
        },
    }
    return document  # pyright: ignore[reportReturnType]


def mixed_config(folder: Path, root: Path | str, **sections: Mapping[str, object]) -> RunConfig:
    document = mixed_document(folder, root)
    for name, keys in sections.items():
        document[name] = {**document.get(name, {}), **keys}
    return parse_config(document, "the test's configuration")
