"""What is noted of a training's updates, and the recipes that note it.

Each forward pass appends a line: update, time of day, CPU seconds of the process, samples of audio,
samples with padding, process id.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.rounds import MeasurementError, rate
from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.recipes.finetune import FinetuneRecipe
from gmp_atl_dist.recipes.retrain import RetrainRecipe
from gmp_atl_dist.training.batches import Batch
from gmp_atl_dist.training.recipe import Forward, Losses, Recipe


@dataclass(frozen=True)
class Note:
    """One forward pass."""

    step: int
    at_s: float
    cpu_s: float
    audio_samples: int
    padded_samples: int
    pid: int


@dataclass(frozen=True)
class Updates:
    """What the updates that count took in one process.

    Attributes:
        useful: share of the samples that are not padding.
        data_wait_share: of the time, spent waiting for batches.
        checkpoint_stall_s: seconds for which one checkpoint held the training up.
        peak_rss_mib: the most memory that the process had.
        matmul_gflops: rate of a large product in this process, while the other rank measures its own.
        model_gflop: the model's arithmetic in the updates.
    """

    audio_s: float
    wall_s: float
    cpu_s: float
    useful: float
    data_wait_share: float = 0.0
    checkpoint_stall_s: float = 0.0
    peak_rss_mib: float = 0.0
    matmul_gflops: float = 0.0
    model_gflop: float = 0.0


def write_note(path: Path, step: int, audio_samples: int, padded_samples: int) -> None:
    """Append a line as a forward pass begins."""
    clocks = f"{time.time()} {time.process_time()}"
    with path.open("a") as file:
        file.write(f"{step} {clocks} {audio_samples} {padded_samples} {os.getpid()}\n")


def read_notes(path: Path) -> list[Note]:
    """All lines so far; none if there is no file yet."""
    lines = path.read_text().splitlines() if path.exists() else []
    notes: list[Note] = []
    for line in lines:
        step, at_s, cpu_s, audio, padded, pid = line.split()
        notes.append(Note(int(step), float(at_s), float(cpu_s), int(audio), int(padded), int(pid)))
    return notes


def updates_between(path: Path, first: int, end: int) -> Updates:
    """Updates ``first`` to ``end`` - 1; the time ends where update ``end`` begins.

    Raises:
        MeasurementError: one of the two was never begun.
    """
    notes = read_notes(path)
    begins = {note.step: note for note in reversed(notes)}
    if not first < end or not {first, end} <= begins.keys():
        raise MeasurementError(
            f"updates {first} to {end} are needed and {len(begins)} were begun; raise --updates"
        )
    counted = [note for note in notes if first <= note.step < end]
    audio = sum(note.audio_samples for note in counted)
    padded = sum(note.padded_samples for note in counted)
    return Updates(
        audio / SAMPLE_RATE_HZ,
        begins[end].at_s - begins[first].at_s,
        begins[end].cpu_s - begins[first].cpu_s,
        rate(audio, padded, "useful samples"),
    )


class _Noted(Recipe):
    """Notes each forward pass as it begins."""

    notes: Path

    def losses(self, forward: Forward, batch: Batch) -> Losses:
        samples_B = batch.num_samples_B
        padded = len(samples_B) * int(samples_B.max())
        write_note(self.notes, batch.step, int(samples_B.sum()), padded)
        return super().losses(forward, batch)


class NotedRetrain(_Noted, RetrainRecipe):
    """``retrain`` with notes."""


class NotedFinetune(_Noted, FinetuneRecipe):
    """``finetune`` with notes."""
