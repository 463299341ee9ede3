"""Interleaved wall times of whole commands: medians with their spread."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Seconds of one command over all rounds."""

    median_s: float
    min_s: float
    max_s: float


def interleaved(commands: Mapping[str, Sequence[str]], rounds: int) -> dict[str, Timing]:
    """Run every command once a round, so that a busy spell of the machine meets all of them.

    Raises:
        RuntimeError: a command failed; with the end of what it printed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            started_s = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            seconds[name].append(time.perf_counter() - started_s)
            if done.returncode:
                raise RuntimeError(f"{name} failed: {(done.stdout + done.stderr)[-500:]}")
    return {
        name: Timing(statistics.median(values), min(values), max(values))
        for name, values in seconds.items()
    }
