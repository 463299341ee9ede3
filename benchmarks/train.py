"""Training: our loop against a bare DDP loop and the Trainer of transformers; front-end cache; recovery.

    python -m benchmarks.train --corpus ../shared/data/nemo
    python -m benchmarks.train --corpus ../shared/data/nemo --model random:small --updates 8

Needs pip install '.[bench]' for the Trainer. Each subject is two processes of one thread, one subject
after another in every round, on the recordings of two speakers with random labels:

- ours: retrain by our loop, with DeepSpeed ZeRO 1, agreed counts, read-ahead, progress and a checkpoint
- ddp: the same batches, losses and optimiser in the shortest loop that PyTorch allows, and the model as
  transformers computes it, with padding
- trainer: transformers.Trainer with its default sampler and padding, the stock HuBERT with a linear
  head and no feature penalty, which is less work than ours
- retrain-frozen, finetune-frozen: our loop with the convolutional encoder frozen; its outputs are
  computed in each update
- retrain-kept, finetune-kept: the same; its outputs are read (runtime.train.frontend_cache)

Only whole updates after the first ones count. Recovery: a worker of a gang of Ray is killed with
SIGKILL, and the time until the next update begins is measured, once.
"""

from __future__ import annotations

import statistics
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from benchmarks.harness.child import run_alone
from benchmarks.harness.command import Benchmark, at_least, positive
from benchmarks.harness.rounds import Spread, interleaved, rate, ratios

if TYPE_CHECKING:
    from benchmarks.subjects.training_inputs import Plan
    from benchmarks.subjects.updates import Updates

SUBJECTS = (
    *("ours", "ddp", "trainer"),
    *("retrain-frozen", "retrain-kept", "finetune-frozen", "finetune-kept"),
)
KEYS = {
    "times_real_time": "audio seconds per second, ours",
    "audio_s_per_cpu_s": "audio seconds per CPU second, ours",
    "matmul_share_train": "arithmetic of the model in ours over the matmul rate of both processes",
    "matmul_share_ddp": "the same of the padded DDP loop",
    "ratio_vs_ddp": "rate of ours over that of the padded DDP loop",
    "peak_rss_ratio": "peak memory of a process of ours over that of the DDP loop, same batches",
    "ratio_vs_trainer": "audio per CPU second of ours over that of the Trainer",
    "frontend_cache_speedup": "retrain: rate with kept outputs over computed ones",
    "frontend_cache_speedup_finetune": "finetune: the same",
    "data_wait_share": "share of the time that ours waits for batches",
    "checkpoint_stall_s": "seconds for which a checkpoint holds ours up",
    "checkpoint_stall_share": "the same as a share, with a checkpoint every ten minutes",
    "recovery_s": "seconds from SIGKILL of a worker to the next update",
    "updates_lost": "updates that were taken again after it, with a checkpoint every five",
}


def _add_options(parser: ArgumentParser) -> None:
    from benchmarks.inputs.speech import add_corpus_options

    add_corpus_options(parser)
    parser.add_argument("--model", default="random:base", help="model.source")
    parser.add_argument(
        "--rounds", type=positive, default=3, metavar="N", help="repetitions of every measurement"
    )
    parser.add_argument(
        "--subjects", nargs="+", default=list(SUBJECTS), choices=SUBJECTS, help="to measure"
    )
    parser.add_argument("--updates", type=at_least(2), default=3, metavar="N", help="that count")
    parser.add_argument(
        "--warm-up", type=positive, default=2, metavar="N", help="updates before them"
    )
    parser.add_argument(
        "--batch-s", type=float, default=45.0, metavar="S", help="audio seconds per update"
    )
    parser.add_argument(
        "--trainer-batch",
        type=positive,
        default=16,
        metavar="N",
        help="recordings per process of the Trainer",
    )
    parser.add_argument(
        "--recovery-updates",
        type=at_least(20),
        default=30,
        metavar="N",
        help="updates of the training whose worker is killed",
    )
    parser.add_argument("--no-recovery", action="store_true", help="kill no worker")


def _measure(args: Namespace) -> dict[str, float | Spread]:
    from benchmarks.inputs.speech import prepare_alone
    from benchmarks.subjects.recovery import recover
    from benchmarks.subjects.training_inputs import Plan, keep_frontend, put_random_labels

    plan = Plan(args.warm_up, args.updates, args.batch_s, args.trainer_batch)
    with tempfile.TemporaryDirectory(prefix="gmp-atl-bench-") as root:
        prepare_alone(args.corpus, args.recordings, root, args.model)
        run_alone(partial(put_random_labels, root))
        if any(subject.endswith("-kept") for subject in args.subjects):
            run_alone(partial(keep_frontend, root))
        figures = _speeds(root, args.subjects, plan, args.rounds)
        if not args.no_recovery:
            recovery = run_alone(partial(recover, root, args.batch_s, args.recovery_updates))
            figures["recovery_s"] = recovery.seconds
            figures["updates_lost"] = recovery.updates_lost
    return figures


def _speeds(
    root: str, subjects: Sequence[str], plan: Plan, rounds: int
) -> dict[str, float | Spread]:
    from benchmarks.subjects.trainings import train_gang

    if "trainer" in subjects and find_spec("accelerate") is None:
        print("trainer: left out, accelerate is not installed; pip install '.[bench]'")
        subjects = [subject for subject in subjects if subject != "trainer"]
    calls = {subject: partial(train_gang, subject, root, plan) for subject in subjects}
    measured = interleaved(calls, rounds)
    rates = {subject: [_rate(gang) for gang in gangs] for subject, gangs in measured.items()}
    per_cpu = {subject: [_per_cpu(gang) for gang in gangs] for subject, gangs in measured.items()}
    for subject, gangs in measured.items():
        useful = statistics.median(updates.useful for gang in gangs for updates in gang)
        print(
            f"  {subject:15} {Spread.of(rates[subject]):.2f} times real time, "
            f"{Spread.of(per_cpu[subject]):.2f} audio seconds per CPU second, {useful:.1%} useful, "
            f"{Spread.of(map(_matmul_share, gangs)):.1%} of the matmul rate, "
            f"{statistics.median(updates.peak_rss_mib for gang in gangs for updates in gang):.0f} MiB"
        )
    figures: dict[str, float | Spread] = _ratios(rates, per_cpu)
    for subject, key in (("ours", "matmul_share_train"), ("ddp", "matmul_share_ddp")):
        if subject in measured:
            figures[key] = Spread.of(map(_matmul_share, measured[subject]))
    if {"ours", "ddp"} <= measured.keys():
        peaks = (
            [max(u.peak_rss_mib for u in gang) for gang in measured[x]] for x in ("ours", "ddp")
        )
        figures["peak_rss_ratio"] = ratios(*peaks)
    if "ours" in measured:
        figures["times_real_time"] = Spread.of(rates["ours"])
        figures["audio_s_per_cpu_s"] = Spread.of(per_cpu["ours"])
        figures |= _waits([gang[0] for gang in measured["ours"]])
    return figures


def _ratios(
    rates: Mapping[str, Sequence[float]], per_cpu: Mapping[str, Sequence[float]]
) -> dict[str, float | Spread]:
    """Of the pairs of subjects that were measured."""
    pairs = {
        "ratio_vs_ddp": (rates, "ours", "ddp"),
        "ratio_vs_trainer": (per_cpu, "ours", "trainer"),
        "frontend_cache_speedup": (rates, "retrain-kept", "retrain-frozen"),
        "frontend_cache_speedup_finetune": (rates, "finetune-kept", "finetune-frozen"),
    }
    return {
        name: ratios(values[ours], values[other])
        for name, (values, ours, other) in pairs.items()
        if {ours, other} <= values.keys()
    }


def _waits(first_ranks: Sequence[Updates]) -> dict[str, float | Spread]:
    """What holds training up; the first rank measures it."""
    from gmp_atl_dist.config import TrainWorkersConfig

    every_s = 60 * TrainWorkersConfig().checkpoint_every_min
    stalls_s = [updates.checkpoint_stall_s for updates in first_ranks]
    return {
        "data_wait_share": Spread.of(updates.data_wait_share for updates in first_ranks),
        "checkpoint_stall_s": Spread.of(stalls_s),
        "checkpoint_stall_share": Spread.of(stall_s / every_s for stall_s in stalls_s),
    }


def _rate(gang: Sequence[Updates]) -> float:
    """Audio seconds per second of all ranks."""
    audio_s = sum(updates.audio_s for updates in gang)
    return rate(audio_s, max(updates.wall_s for updates in gang), "times real time")


def _matmul_share(gang: Sequence[Updates]) -> float:
    """Of the rate of both processes, which measure it at the same time."""
    done = sum(updates.model_gflop for updates in gang)
    wall_s = max(updates.wall_s for updates in gang)
    rate_gflops = sum(updates.matmul_gflops for updates in gang)
    return rate(done, wall_s * rate_gflops, "share of the matmul rate")


def _per_cpu(gang: Sequence[Updates]) -> float:
    audio_s = sum(updates.audio_s for updates in gang)
    return rate(audio_s, sum(updates.cpu_s for updates in gang), "audio seconds per CPU second")


BENCHMARK = Benchmark(
    name="train",
    about=__doc__,
    keys=KEYS,
    quick={
        "recordings": 16,
        "model": "random:tiny",
        "rounds": 1,
        "updates": 3,
        "batch_s": 8.0,
        "trainer_batch": 2,
        "recovery_updates": 60,
    },
    add_options=_add_options,
    measure=_measure,
)

if __name__ == "__main__":
    raise SystemExit(BENCHMARK.run())
