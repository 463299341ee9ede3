"""The subjects of ``benchmarks.train``: gangs of two processes of one thread, each measured by itself."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist

from benchmarks.harness.child import Child
from benchmarks.harness.machine import matmul_gflops
from benchmarks.harness.processes import MIB, peak_bytes
from benchmarks.harness.rounds import rate
from benchmarks.inputs.speech import Speech
from benchmarks.subjects.rivals import train_by_ddp, train_by_trainer
from benchmarks.subjects.training_inputs import (
    RANKS,
    Plan,
    finetune_recipe,
    kept_frontend,
    retrain_recipe,
)
from benchmarks.subjects.updates import Updates, read_notes, updates_between
from gmp_atl_dist.audio import FRAME_HOP_SAMPLES, SAMPLE_RATE_HZ
from gmp_atl_dist.config import TrainWorkersConfig
from gmp_atl_dist.models.flops import frame_flops
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.index import Utterances
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.training.loop import TrainJob, run_training
from gmp_atl_dist.training.recipe import Recipe

WHOLE = ("ours", "ddp", "trainer")
"""Subjects that train the convolutional encoder too."""


def train_gang(subject: str, root: str, plan: Plan) -> list[Updates]:
    """Train on all ranks; what each measured, the first rank first."""
    with tempfile.TemporaryDirectory(prefix="gmp-atl-bench-") as folder:
        calls = [partial(_measured, subject, root, folder, rank, plan) for rank in range(RANKS)]
        ranks = [Child(call, threads=1) for call in calls]
        try:
            return [rank.result() for rank in ranks]
        finally:
            for rank in ranks:
                rank.close()


def _measured(subject: str, root: str, folder: str, rank: int, plan: Plan) -> Updates:
    """The training of one rank, with the matmul rate after it, when both ranks measure theirs."""
    updates = _train_rank(subject, root, folder, rank, plan)
    peak_rss_mib = peak_bytes() / MIB
    meeting_files = [Path(folder) / f"trained-{i}" for i in range(RANKS)]
    meeting_files[rank].touch()
    while not all(map(Path.exists, meeting_files)):
        time.sleep(0.01)
    return replace(
        updates,
        peak_rss_mib=peak_rss_mib,
        matmul_gflops=matmul_gflops(),
        model_gflop=updates.audio_s * _gflop_a_second(root, trains_conv=subject in WHOLE),
    )


def _gflop_a_second(root: str, *, trains_conv: bool) -> float:
    """Arithmetic of the model in an update, for a second of audio: three times that of a forward pass.

    Of a frozen convolutional encoder only the forward pass.
    """
    speech = Speech.at(root)
    lengths = Utterances(speech.corpus, speech.fold.train_speakers).num_samples
    flops = frame_flops(speech.model().config, float(lengths.mean()) / FRAME_HOP_SAMPLES)
    conv = (3 if trains_conv else 1) * flops.conv
    return (conv + 3 * flops.rest) * SAMPLE_RATE_HZ / FRAME_HOP_SAMPLES / 1e9


def _train_rank(subject: str, root: str, folder: str, rank: int, plan: Plan) -> Updates:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(RANKS),
        "DS_ACCELERATOR": "cpu",
        # The group is made below; the Trainer only looks whether these are there.
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
    }
    torch.set_num_threads(1)
    method = f"file://{folder}/group"
    dist.init_process_group("gloo", init_method=method, rank=rank, world_size=RANKS)
    notes, steps = Path(folder) / f"notes-{rank}", plan.end + 1
    stage, _, frontend = subject.partition("-")
    if frontend:
        recipe = (
            finetune_recipe(root, notes, steps, plan.batch_s)
            if stage == "finetune"
            else retrain_recipe(root, notes, steps, plan.batch_s, freeze_conv=True)
        )
        kept = kept_frontend(root) if frontend == "kept" else None
        return _by_our_loop(recipe, rank, notes, plan, folder, kept)
    recipe = retrain_recipe(root, notes, steps, plan.batch_s)
    if subject == "ours":
        return _by_our_loop(recipe, rank, notes, plan, folder)
    if subject == "ddp":
        train_by_ddp(recipe, rank)
    else:
        train_by_trainer(recipe, rank, notes, steps, plan.trainer_batch, folder)
    return updates_between(notes, plan.warm_up, plan.end)


class _Gang:
    """The loop's view of its ranks, without Ray."""

    node = 0

    def __init__(self, rank: int) -> None:
        self.rank, self.world_size, self.node_leader = rank, RANKS, rank == 0
        self.metrics: dict[str, float] = {}
        """Of the training; the first rank alone is given them."""

    def report(self, step: int) -> None:
        return None

    def preemption_pending(self) -> bool:
        return False

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        self.metrics = dict(metrics)


def _by_our_loop(
    recipe: Recipe,
    rank: int,
    notes: Path,
    plan: Plan,
    folder: str,
    frontend: Artifact | None = None,
) -> Updates:
    # The checkpoint is taken after the updates that count. The loop measures for how long it stood still
    # meanwhile, and that is reported by itself.
    workers = TrainWorkersConfig(workers=RANKS, checkpoint_every_steps=plan.end)
    key = ArtifactKey(recipe.name, "2" * 64)
    job = TrainJob(recipe, Store.open(f"{folder}/out"), key, workers, frontend)
    gang = _Gang(rank)
    run_training(job, gang)
    updates = updates_between(notes, plan.warm_up, plan.end - 1)
    if rank:
        return updates
    audio_s = RANKS * sum(note.audio_samples for note in read_notes(notes)) / SAMPLE_RATE_HZ
    elapsed_s = rate(audio_s, gang.metrics["audio_h_per_h"], "elapsed time of the training")
    return replace(
        updates,
        data_wait_share=gang.metrics["data_wait_share"],
        checkpoint_stall_s=gang.metrics["checkpoint_stall_share"] * elapsed_s,
    )
