"""Sweeps of the tiny corpus, every stage as short as can be. PYTEST_DONT_REWRITE"""

from __future__ import annotations

from pathlib import Path

BASE = """
[corpus]
part_audio_s = 5
[folds]
held_out = [["Session1"], ["Session2", "Session3", "Session4"]]
[model]
source = "random:tiny"
[warmup]
batch_s = 3.0
lr = 1e-3
epochs = 1
[extract]
layers = [2, 3]
[cluster]
scales = [{ layer = 2, k = 5 }]
iterations = 3
stability_frames = 0
[retrain]
batch_s = 3.0
steps = 1
projection_dim = 16
[finetune]
batch_s = 3.0
epochs = 1
embedding_dim = 16
[evaluate]
bootstrap_samples = 20
"""


def write_sweep_files(folder: Path, corpus: Path, arms: str, seeds: int = 2) -> Path:
    """The file of a sweep with these arms, beside its base; artefacts go to ``folder/root``."""
    places = f'[runtime]\ncorpus = "{corpus}"\nroot = "{folder / "root"}"\n'
    (folder / "base.toml").write_text(BASE + places)
    path = folder / "s.toml"
    path.write_text(f'base = "base.toml"\nseeds = {list(range(seeds))}\n{arms}')
    return path
