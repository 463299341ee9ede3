"""Trainings by the package's own loop on one device, without Ray, for parts of ``benchmarks.gpu``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist

from benchmarks.harness.gpu import (
    DeviceName,
    Place,
    forget_peak_memory,
    peak_gib,
    watched,
    working_tflops,
)
from benchmarks.harness.rounds import rate
from benchmarks.inputs.spoken import store_training
from benchmarks.subjects.gpu_frames import hubert_config
from benchmarks.subjects.updates import NotedRetrain, updates_between
from gmp_atl_dist.audio import FRAME_HOP_SAMPLES, SAMPLE_RATE_HZ
from gmp_atl_dist.config import RetrainConfig, TrainWorkersConfig
from gmp_atl_dist.device import collective_backend
from gmp_atl_dist.models.flops import frame_flops
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.readers import read_curves
from gmp_atl_dist.store.writer import ArtifactWriter
from gmp_atl_dist.training.loop import TrainJob, run_training

_FRAMES_PER_S = SAMPLE_RATE_HZ / FRAME_HOP_SAMPLES


@dataclass(frozen=True)
class Training:
    """A training to measure.

    Attributes:
        batch_s: audio of an update, in one forward pass.
        audio_s: of the corpus.
        warm_up: first updates, which do not count.
    """

    size: str
    batch_s: float
    updates: int
    audio_s: float
    warm_up: int = 0
    dropout: float = 0.1
    freeze_conv: bool = False


@dataclass(frozen=True)
class Trained:
    """What a training took.

    Attributes:
        curve: the loss at each point.
        tflops: arithmetic of the model, without padding, 1e12 FLOP/s.
        matmul_tflops: the matmul rate of the same process in the type of the products.
    """

    curve: tuple[float, ...]
    updates_per_s: float
    audio_per_update_s: float
    tflops: float
    matmul_tflops: float
    peak_gib: float | None
    busy: float | None


class Alone:
    """A gang of one process, without Ray."""

    rank, world_size, node, node_leader = 0, 1, 0, True

    def report(self, step: int) -> None:
        return None

    def preemption_pending(self) -> bool:
        return False

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        return None


def train_alone(device: DeviceName, training: Training) -> Trained:
    """Train in this process, which must be a fresh one: DeepSpeed keeps the device of its first import."""
    place = Place(device, 0)
    target = place.choose()
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "DS_ACCELERATOR": device}
    with tempfile.TemporaryDirectory(prefix="gmp-atl-bench-") as folder:
        dist.init_process_group(
            collective_backend(), init_method=f"file://{folder}/group", rank=0, world_size=1
        )
        matmul = working_tflops(target)
        recipe, store = training_recipe(Path(folder), training)
        forget_peak_memory(target)
        key = ArtifactKey("retrain", "f" * 64)
        workers = TrainWorkersConfig(checkpoint_every_steps=10**6, checkpoint_every_min=10**6)
        with watched(target) as busy:
            run_training(TrainJob(recipe, store, key, workers), Alone())
        artifact = ArtifactWriter(store, key).seal(version=1, science={}, inputs={})
        curve = tuple(value for _, value in read_curves(artifact)["loss"])
        taken = updates_between(recipe.notes, training.warm_up, training.updates - 1)
    counted = training.updates - 1 - training.warm_up
    per_s = rate(counted, taken.wall_s, "updates per second")
    audio_per_update_s = taken.audio_s / counted
    return Trained(
        curve,
        per_s,
        audio_per_update_s,
        per_s * _update_tflop(training, audio_per_update_s),
        matmul,
        peak_gib(target),
        busy.share,
    )


def training_recipe(folder: Path, training: Training) -> tuple[NotedRetrain, Store]:
    """``retrain`` on random labels, and the store below ``folder`` that it reads."""
    stored = store_training(folder / "root", training.size, training.audio_s)
    config = RetrainConfig(
        steps=training.updates,
        batch_s=training.batch_s,
        micro_batches=1,
        dropout=training.dropout,
        freeze_conv=training.freeze_conv,
        lr=5e-4,
    )
    recipe = NotedRetrain(config, stored.training, stored.backbone, stored.labels, stored.books)
    recipe.notes = folder / "notes"
    return recipe, stored.store


def _update_tflop(training: Training, audio_s: float) -> float:
    """Of an update: a backward pass costs two forward passes. A frozen encoder has none."""
    mean_frames = 4.5 * _FRAMES_PER_S
    flops = frame_flops(hubert_config(training.size), mean_frames)
    conv = flops.conv * (1 if training.freeze_conv else 3)
    return audio_s * _FRAMES_PER_S * (conv + 3 * flops.rest) / 1e12
