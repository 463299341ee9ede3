"""What unlabelled speech is worth: a run with it against the same run without it, at equal updates.

    python -m benchmarks.mixed --config emodb_nemo

Both arms run whole, once per seed: warm-up, pseudo-labels, retraining, fine-tuning, test. They have the
same updates and batches. In the arm without, the sources with role = "unlabelled" are left out. The
difference has two intervals: over test utterances (bootstrap; the same draws in both arms, of the mean over
seeds), and over seeds (Student's t of the paired differences; null for one seed). A run that was stopped
resumes. Without --config it is a small experiment on synthetic voices: its figures say nothing about speech.
"""

from __future__ import annotations

import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness import two_arms
from benchmarks.harness.command import Benchmark
from benchmarks.harness.rounds import Spread

if TYPE_CHECKING:
    from gmp_atl_dist.config import RunConfig


def _add_options(parser: ArgumentParser) -> None:
    two_arms.add_options(parser, "of both arms")


def _measure(args: Namespace) -> dict[str, float | Spread | None]:
    from benchmarks.subjects.mixing import WITH, WITHOUT, compare

    with _configuration(args.config, args.set) as config:
        return compare(config, args.seeds).compared(WITH, WITHOUT)


@contextmanager
def _configuration(path: str | None, overrides: list[str]) -> Iterator[RunConfig]:
    from gmp_atl_dist.config.file import load_config
    from gmp_atl_dist.corpora.synth import write_synthetic_corpus

    if path is not None:
        yield load_config(path, overrides)
        return
    with tempfile.TemporaryDirectory(prefix="gmp-atl-bench-") as folder:
        settings = [f"runtime.root={folder}/root", *_FEW_UPDATES]
        for seed, name in enumerate(("acted", "read", "talks")):
            target = Path(folder) / name
            write_synthetic_corpus(target, seed=seed, utterances_per_speaker_and_emotion=2)
            settings.append(f"runtime.corpora.{name}={target}")
        yield load_config("mixed", [*settings, *overrides])


_FEW_UPDATES = (
    "warmup.epochs=1",
    "retrain.steps=5",
    "finetune.epochs=1",
    # Most of the time is the start of workers.
    "runtime.ingest.workers=1",
    "runtime.extract.workers=1",
    "runtime.train.workers=1",
)

BENCHMARK = Benchmark(
    name="mixed",
    about=__doc__,
    keys=two_arms.keys_of("with", "with unlabelled speech", "without", "without it"),
    quick={"seeds": 1},
    add_options=_add_options,
    measure=_measure,
)

if __name__ == "__main__":
    raise SystemExit(BENCHMARK.run())
