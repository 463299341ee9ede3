"""Training: our loop against a bare DDP loop and the Trainer of ``transformers``; recovery; checkpoints.

    python -m benchmarks.train --corpus ../shared/data/nemo

Needs ``pip install '.[bench]'`` for the Trainer. Subjects, each of two processes of one thread, one
after another in every round, on the recordings of two speakers of nemo with random labels:

- ``ours``: ``retrain`` by our loop: DeepSpeed ZeRO 1, agreed counts, read-ahead, progress, a checkpoint
- ``ddp``: the same batches, model, losses and optimiser in the shortest loop that PyTorch allows
- ``trainer``: ``transformers.Trainer`` with its default sampler and padding, batches of 16 a process,
  the stock HuBERT with a linear head and no feature penalty, which is less work than ours

``retrain`` and ``finetune`` with the convolutional encoder frozen, its outputs computed in each update
(``frozen``) or read (``kept``; ``runtime.train.frontend_cache``), likewise.

Only whole updates after the first ones count. ``recovery`` kills a worker of a gang of Ray with
SIGKILL and takes the time until the next update is begun.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.distributed as dist

from benchmarks.speech import prepare
from benchmarks.train_inputs import (
    RANKS,
    Figures,
    figures,
    finetune_recipe,
    keep_frontend,
    kept_frontend,
    put_random_labels,
    retrain_recipe,
)
from benchmarks.train_recovery import recovery
from benchmarks.train_rivals import train_by_ddp, train_by_trainer
from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.config import TrainWorkersConfig
from gmp_atl_dist.store.artifact import Artifact, ArtifactKey
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.training.loop import TrainJob, run_training
from gmp_atl_dist.training.recipe import Recipe

SUBJECTS = ("ours", "ddp", "trainer")
FRONTENDS = ("retrain-frozen", "retrain-kept", "finetune-frozen", "finetune-kept")
WARM_UPDATES = 2
UPDATES = {"small": 8, "base": 3}
CHECKPOINT_EVERY_S = 60 * TrainWorkersConfig().checkpoint_every_min


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", required=True, help="folder of nemo")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", nargs="+", default=["small", "base"], choices=list(UPDATES))
    parser.add_argument(
        "--subjects", nargs="+", default=[*SUBJECTS, *FRONTENDS], choices=[*SUBJECTS, *FRONTENDS]
    )
    parser.add_argument("--no-recovery", action="store_true")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--root", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank is not None:
        (subject,), (size,) = args.subjects, args.sizes
        print(
            json.dumps(asdict(_rank(subject, size, args.corpus, args.root, args.folder, args.rank)))
        )
        sys.stdout.flush()
        # DeepSpeed's threads would keep an interpreter that has nothing to do any more.
        os._exit(0)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="gmp-atl-bench-") as folder:
        for size in args.sizes:
            root = f"{folder}/{size}"
            prepare(args.corpus, root, f"random:{size}")
            put_random_labels(args.corpus, root)
            if {*FRONTENDS} & {*args.subjects}:
                keep_frontend(args.corpus, root)
            found |= _steps(size, args.corpus, root, args.rounds, args.subjects)
        if not args.no_recovery:
            found |= recovery(args.corpus, f"{folder}/{args.sizes[0]}")
    print(json.dumps(found))


def _steps(
    size: str, corpus: str, root: str, rounds: int, subjects: Sequence[str]
) -> dict[str, float]:
    found: dict[str, list[list[Figures]]] = {subject: [] for subject in subjects}
    for number in range(rounds):
        for subject in subjects:
            begun_s = time.monotonic()
            found[subject].append(_gang(subject, size, corpus, root))
            took_s = time.monotonic() - begun_s
            print(f"{size}, round {number + 1}, {subject}: {took_s:.0f} s", flush=True)
    rates: dict[str, list[float]] = {}
    per_cpu: dict[str, list[float]] = {}
    print(f"\n{size}: {rounds} rounds, {UPDATES[size]} updates each, median (smallest to largest)")
    for subject, many in found.items():
        rates[subject] = [sum(f.audio_s for f in r) / max(f.wall_s for f in r) for r in many]
        per_cpu[subject] = [sum(f.audio_s for f in r) / sum(f.cpu_s for f in r) for r in many]
        useful = statistics.median(f.useful for r in many for f in r)
        print(
            f"  {subject:15} {_spread(rates[subject])} times real time, {_spread(per_cpu[subject])} "
            f"audio seconds a CPU second, {useful:.1%} useful"
        )
    suffix = "" if size == "base" else f"_{size}"
    said: dict[str, float] = {}
    for stage, name in (("retrain", ""), ("finetune", "_finetune")):
        kept, frozen = f"{stage}-kept", f"{stage}-frozen"
        if {kept, frozen} <= found.keys():
            said[f"frontend_cache_speedup{name}{suffix}"] = _ratio(rates[kept], rates[frozen])
    if {"ours", "ddp"} <= found.keys():
        said[f"ratio_vs_ddp{suffix}"] = _ratio(rates["ours"], rates["ddp"])
    if {"ours", "trainer"} <= found.keys():
        said[f"ratio_vs_trainer{suffix}"] = _ratio(per_cpu["ours"], per_cpu["trainer"])
    if "ours" in found:
        every = [r[0] for r in found["ours"]]  # rank 0 is told
        stall_s = statistics.median(f.checkpoint_stall_s for f in every)
        print(f"  a checkpoint holds training up for {stall_s:.2f} s, by default every 10 minutes")
        said[f"data_wait_share{suffix}"] = max(f.data_wait_share for f in every)
        said[f"checkpoint_stall_share{suffix}"] = stall_s / CHECKPOINT_EVERY_S
    return {name: round(value, 4) for name, value in said.items()}


def _ratio(ours: Sequence[float], other: Sequence[float]) -> float:
    """Median over rounds, whose two measurements were taken one after the other."""
    return statistics.median(a / b for a, b in zip(ours, other, strict=True))


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _gang(subject: str, size: str, corpus: str, root: str) -> list[Figures]:
    with tempfile.TemporaryDirectory(prefix="gmp-atl-bench-") as folder:
        command = [sys.executable, "-m", "benchmarks.train", "--corpus", corpus, "--root", root]
        command += ["--folder", folder, "--subjects", subject, "--sizes", size]
        # Files, not pipes: a rank that fills its pipe while the other's is read would wait for ever.
        ranks = []
        for rank in range(RANKS):
            with (
                open(f"{folder}/out-{rank}", "wb") as out,
                open(f"{folder}/err-{rank}", "wb") as err,
            ):
                ranks.append(
                    subprocess.Popen([*command, "--rank", str(rank)], stdout=out, stderr=err)
                )
        found: list[Figures] = []
        for rank, process in enumerate(ranks):
            if process.wait():
                said = Path(f"{folder}/err-{rank}").read_text(errors="replace")
                raise RuntimeError(f"{subject} failed: {said[-2000:]}")
            out_lines = Path(f"{folder}/out-{rank}").read_text().splitlines()
            found.append(Figures(**json.loads(out_lines[-1])))
    return found


def _rank(subject: str, size: str, corpus: str, root: str, folder: str, rank: int) -> Figures:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(RANKS),
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        # The group is made below; the Trainer only looks whether these are there.
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
    }
    torch.set_num_threads(1)
    method = f"file://{folder}/group"
    dist.init_process_group("gloo", init_method=method, rank=rank, world_size=RANKS)
    end = WARM_UPDATES + UPDATES[size]
    notes = Path(folder) / f"notes-{rank}"
    if subject in FRONTENDS:
        stage, _, how = subject.partition("-")
        return _ours(
            finetune_recipe(corpus, root, notes, end + 1)
            if stage == "finetune"
            else retrain_recipe(corpus, root, notes, end + 1, freeze_conv=True),
            rank,
            notes,
            end,
            folder,
            kept_frontend(corpus, root) if how == "kept" else None,
        )
    recipe = retrain_recipe(corpus, root, notes, end + 1)
    if subject == "ddp":
        train_by_ddp(recipe, rank)
    elif subject == "trainer":
        train_by_trainer(recipe, rank, notes, end + 1, folder)
    else:
        return _ours(recipe, rank, notes, end, folder)
    return figures(notes, WARM_UPDATES, end)


class _Gang:
    node = 0

    def __init__(self, rank: int) -> None:
        self.rank, self.world_size, self.node_leader = rank, RANKS, rank == 0
        self.measures: dict[str, float] = {}  # rank 0 is told

    def report(self, step: int) -> None:
        return None

    def preemption_pending(self) -> bool:
        return False

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        self.measures = dict(metrics)


def _ours(
    recipe: Recipe,
    rank: int,
    notes: Path,
    end: int,
    folder: str,
    frontend: Artifact | None = None,
) -> Figures:
    store = Store.open(f"{folder}/out")
    # The checkpoint is taken after the updates that count: its cost, for which the loop counts how long
    # it stood still, is told as such.
    workers = TrainWorkersConfig(workers=RANKS, checkpoint_every_steps=end)
    job = TrainJob(recipe, store, ArtifactKey(recipe.name, "2" * 64), workers, frontend)
    gang = _Gang(rank)
    run_training(job, gang)
    counted = figures(notes, WARM_UPDATES, end - 1)
    if rank:
        return counted
    heard = [int(row.split()[3]) for row in notes.read_text().splitlines()]
    elapsed_s = RANKS * sum(heard) / SAMPLE_RATE_HZ / gang.measures["audio_h_per_h"]
    return replace(
        counted,
        data_wait_share=gang.measures["data_wait_share"],
        checkpoint_stall_s=gang.measures["checkpoint_stall_share"] * elapsed_s,
    )


if __name__ == "__main__":
    main()
