"""A training whose checkpoint goes from one device to another, in processes of their own."""

from __future__ import annotations

import os
from pathlib import Path

import torch.distributed as dist

from benchmarks.harness.gpu import DeviceName, Place
from benchmarks.subjects.gpu_updates import Alone, Training, training_recipe
from gmp_atl_dist.config import TrainWorkersConfig
from gmp_atl_dist.device import collective_backend
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.readers import read_curves
from gmp_atl_dist.store.writer import ArtifactWriter
from gmp_atl_dist.training.loop import TrainJob, run_training

TRAINING = Training("tiny", batch_s=4.0, updates=12, audio_s=12.0, dropout=0.0)
EVERY = 4
_KEY = ArtifactKey("retrain", "f" * 64)


class _Stopped(Exception):
    pass


class _Stopping(Alone):
    """Ends as a killed process does, once ``after`` checkpoints are safe."""

    def __init__(self, after: int | None) -> None:
        self._left = after

    def report(self, step: int) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                raise _Stopped


def train_in(
    folder: Path, device: DeviceName, stop_after: int | None, micro_batches: int = 1
) -> list[float]:
    """Train in ``folder`` from its newest checkpoint; the loss at each update, or nothing if stopped."""
    Place(device, 0).choose()
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "DS_ACCELERATOR": device}
    group = folder / f"group-{os.getpid()}"
    dist.init_process_group(collective_backend(), init_method=group.as_uri(), rank=0, world_size=1)
    recipe, _ = training_recipe(folder, TRAINING)
    recipe.optim = recipe.optim.model_copy(update={"micro_batches": micro_batches})
    store = Store.open(str(folder / "out"))
    workers = TrainWorkersConfig(checkpoint_every_steps=EVERY)
    try:
        run_training(TrainJob(recipe, store, _KEY, workers), _Stopping(stop_after))
    except _Stopped:
        return []
    artifact = ArtifactWriter(store, _KEY).seal(version=1, science={}, inputs={})
    return [value for _, value in read_curves(artifact)["loss"]]
