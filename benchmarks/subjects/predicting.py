"""The subjects of ``benchmarks.predict``: ours, and the pipeline of transformers, on the same files."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness.processes import MIB
from benchmarks.harness.rounds import rate

Results = Iterator[dict[str, float]]

_CLI = (sys.executable, "-m", "gmp_atl_dist.cli", "predict")


@dataclass(frozen=True)
class Predicting:
    """What one subject took in one round, and its probabilities in the order of the files."""

    files: int
    wall_s: float
    cpu_s: float
    probabilities: list[dict[str, float]]

    @property
    def files_per_s(self) -> float:
        return rate(self.files, self.wall_s, "files per second")

    @property
    def cpu_s_per_file(self) -> float:
        return self.cpu_s / self.files


def predict_once(
    subject: str, model: str, paths: Sequence[str], warm_up: int, threads: int
) -> Predicting:
    """Measure a subject; the first ``warm_up`` files are predicted once before.

    Args:
        subject: ``ours``, or ``pipeline-N`` with batches of N.
        model: an exported classifier.
        paths: recordings. Reading and decoding them counts.
        threads: of computing. Ours takes as many, each with one core; the pipeline's products do.
    """
    kind, _, batch = subject.partition("-")
    run = _ours(model, threads) if kind == "ours" else _pipeline(model, int(batch))
    for _ in run(paths[:warm_up]):
        pass
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    probabilities = list(run(paths))
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    return Predicting(len(paths), wall_s, cpu_s, probabilities)


def _ours(model: str, threads: int) -> Callable[[Sequence[str]], Results]:
    from gmp_atl_dist import Predictor

    predictor = Predictor(model, threads=threads)

    def run(paths: Sequence[str]) -> Results:
        for result in predictor.stream(paths):
            assert result.verdict is not None, result.error
            yield result.verdict.probabilities

    return run


def _pipeline(model: str, batch: int) -> Callable[[Sequence[str]], Results]:
    import soundfile as sf
    from transformers import pipeline

    classify: Any = pipeline(
        "audio-classification", model=model, trust_remote_code=True, top_k=None
    )

    def inputs(paths: Sequence[str]) -> Iterator[dict[str, object]]:
        # Given a path, the pipeline would start ffmpeg for each file, which takes longer.
        for path in paths:
            wave, rate_hz = sf.read(io.BytesIO(Path(path).read_bytes()), dtype="float32")
            yield {"raw": wave, "sampling_rate": rate_hz}

    def run(paths: Sequence[str]) -> Results:
        for rows in classify(inputs(paths), batch_size=batch):
            yield {row["label"]: row["score"] for row in rows}

    return run


def largest_difference(ours: Predicting, theirs: Predicting) -> float:
    """Of a probability, over all files and classes."""
    pairs = zip(ours.probabilities, theirs.probabilities, strict=True)
    return max(abs(a[emotion] - b[emotion]) for a, b in pairs for emotion in a)


def first_result_s(model: str, paths: Sequence[str]) -> float:
    """Seconds from the start of the command to its first line."""
    started_s = time.perf_counter()
    with subprocess.Popen((*_CLI, model, *paths), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - started_s
        process.stdout.read()
    if process.returncode or not line:
        raise RuntimeError(f"gmp-atl predict ended with {process.returncode}")
    return seconds


def command_peak_mib(model: str, paths: Sequence[str], files: int, folder: str) -> float:
    """Most memory of the command, in MiB, on a list of ``files`` paths; ``paths`` are repeated."""
    listed = Path(folder) / f"{files}.txt"
    listed.write_text("".join(f"{paths[i % len(paths)]}\n" for i in range(files)))
    process = subprocess.Popen(
        (*_CLI, model, str(listed), "--out", f"{folder}/{files}.csv"), stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    said = process.stderr.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"gmp-atl predict ended with {process.returncode}:\n{said[-2000:]}")
    return usage.ru_maxrss * 1024 / MIB
