"""What pretraining on a little speech is worth: fine-tuning from it against fine-tuning from random weights.

    python -m benchmarks.pretrain --config configs/nemo_pretrain.toml --set runtime.corpus=../shared/data/nemo

Pretrains on the fold's training speakers as the configuration says. Then it fine-tunes and tests, from
the pretrained and from the random weights, once per seed, with the same updates and batches. Nothing is
fitted on the test speakers. The difference has two intervals: over test utterances (bootstrap; the same
draws in both arms, of the mean over seeds), and over seeds (Student's t of the paired differences; null
for one seed). A run that was stopped resumes. Without --config it is a small experiment on a synthetic
corpus, whose figures say nothing about speech.
"""

from __future__ import annotations

import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from benchmarks.harness import two_arms
from benchmarks.harness.command import Benchmark
from benchmarks.harness.rounds import Spread

if TYPE_CHECKING:
    from gmp_atl_dist.config import RunConfig

KEYS = {
    "masked_accuracy": "accuracy on masked frames at the end of the last iteration",
    "largest_cluster_share": "share of the largest cluster, the score of a constant prediction",
    **two_arms.keys_of(
        "pretrained",
        "of finetune from the pretrained weights",
        "random",
        "of finetune from random weights",
    ),
}


def _add_options(parser: ArgumentParser) -> None:
    two_arms.add_options(parser, "of finetune")


def _measure(args: Namespace) -> dict[str, float | Spread | None]:
    from benchmarks.subjects.pretraining import compare

    with _configuration(args.config, args.set) as config:
        result = compare(config, args.seeds)
    return {
        "masked_accuracy": result.masked_accuracy[-1],
        "largest_cluster_share": result.largest_cluster_share[-1],
        **result.arms.compared("pretrained", "random"),
    }


@contextmanager
def _configuration(path: str | None, overrides: list[str]) -> Iterator[RunConfig]:
    from benchmarks.inputs.small_run import CONFIG, small_run
    from gmp_atl_dist.config.file import load_config

    if path is not None:
        yield load_config(path, overrides)
        return
    with tempfile.TemporaryDirectory(prefix="gmp-atl-bench-") as folder:
        settings = small_run(folder, ["pretrain.iterations=1", *overrides])
        yield load_config(CONFIG, settings)


BENCHMARK = Benchmark(
    name="pretrain",
    about=__doc__,
    keys=KEYS,
    quick={"seeds": 1},
    add_options=_add_options,
    measure=_measure,
)

if __name__ == "__main__":
    raise SystemExit(BENCHMARK.run())
