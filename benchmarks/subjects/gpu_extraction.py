"""Part 2: audio per second of extraction, its share of the matmul rate, memory, and how busy the GPU is."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pyarrow as pa
import torch

from benchmarks.harness.gpu import (
    Place,
    forget_peak_memory,
    matmul_tflops,
    peak_gib,
    seconds_of,
    watched,
    working_tflops,
)
from benchmarks.harness.parts import Rows
from benchmarks.inputs.spoken import Lengths, audio_s, recordings
from benchmarks.subjects.gpu_frames import Features, extract_parts, store_worker, table_tflop

LAYERS = {"tiny": (2, 3), "base": (6, 9, 12), "large": (12, 18, 24)}
_KINDS: tuple[Lengths, ...] = ("iemocap", "librispeech")
_ROUNDS = 5
_PARTS = 16


def measure(place: Place, rows: Rows) -> None:
    """Each size, with recordings as long as IEMOCAP's and as LibriSpeech's, by audio in a batch."""
    device = place.choose()
    begun_s = time.monotonic()
    rate = _matmul_rates(place, device, rows)
    part_s = 600.0 if place.on_gpu else 8.0
    batches: tuple[float | None, ...] = (60.0, 300.0, 1200.0, None) if place.on_gpu else (4.0, None)
    # First what counts, should the time run out.
    sizes = ("base", "large") if place.on_gpu else ("tiny",)
    for size in sizes:
        _as_it_runs(place, device, rows, size, recordings("iemocap", part_s), rate)
    for size in sizes:
        for batch_s in reversed(batches):
            for kind in _KINDS:
                if time.monotonic() - begun_s > 0.8 * place.seconds:
                    rows.add(f"{size}, {kind}, batch {batch_s}", None, note="no time left")
                    continue
                table = recordings(kind, part_s)
                _measure(place, device, rows, size, kind, table, batch_s, rate)


def _matmul_rates(place: Place, device: torch.device, rows: Rows) -> float:
    """Measure them; that of the type in which the package computes, 1e12 FLOP/s."""
    bf16 = matmul_tflops(device, torch.bfloat16)
    rows.add("matrix product, bf16", bf16, "TFLOP/s", key="matmul_bf16_tflops")
    fp32 = matmul_tflops(device, torch.float32)
    rows.add("matrix product, fp32", fp32, "TFLOP/s", key="matmul_fp32_tflops")
    if place.on_gpu:
        rows.add("matrix product, TF32", matmul_tflops(device, torch.float32, tf32=True), "TFLOP/s")
    return working_tflops(device)


def _measure(
    place: Place,
    device: torch.device,
    rows: Rows,
    size: str,
    kind: Lengths,
    table: pa.Table,
    batch_s: float | None,
    rate: float,
) -> None:
    what = f"{size}, lengths of {kind}, batch {'fitted' if batch_s is None else f'{batch_s:g} s'}"
    forget_peak_memory(device)
    features = Features(size, LAYERS[size], device, batch_s)
    seconds = seconds_of(lambda: features(table), device, rounds=_ROUNDS if place.on_gpu else 1)
    tflops = table_tflop(size, LAYERS[size][-1], table) / seconds
    rows.add(
        f"{what}: share of the matmul rate",
        tflops / rate,
        note=f"{tflops:.3g} of {rate:.3g} TFLOP/s; batch {features.batch_s:.0f} s",
    )
    rows.add(f"{what}: audio per second", audio_s(table) / seconds, "s")
    peak = peak_gib(device)
    if peak is not None:
        rows.add(f"{what}: peak memory", peak, "GiB")


def _as_it_runs(
    place: Place, device: torch.device, rows: Rows, size: str, table: pa.Table, rate: float
) -> None:
    """A worker without Ray: features of a part are stored while the next part is computed."""
    parts = _PARTS if place.on_gpu else 1
    with tempfile.TemporaryDirectory(prefix="gmp-atl-bench-") as folder:
        worker = store_worker(Path(folder), size, LAYERS[size])
        extract_parts(worker, table, ["warm-up"])
        names = [f"part-{number}" for number in range(parts)]
        with watched(device) as busy:
            seconds = extract_parts(worker, table, names) / parts
    what = f"{size}, lengths of iemocap, a worker as it runs"
    on_gpu = place.on_gpu
    rows.add(
        f"{what}: share of the matmul rate",
        table_tflop(size, LAYERS[size][-1], table) / seconds / rate,
        key=f"extract_mfu_{size}" if on_gpu else "",
        goal=">= 0.5" if on_gpu else "",
        note=f"{parts} parts of {audio_s(table):.0f} s, features stored in a folder",
    )
    rows.add(
        f"{what}: audio per second",
        audio_s(table) / seconds,
        "s",
        key=f"extract_times_real_time_{size}" if on_gpu else "",
    )
    rows.add(
        f"{what}: share of the time in which the GPU is busy, by NVML",
        busy.share,
        key="extract_busy" if on_gpu and size == "base" else "",
        goal=">= 0.95" if on_gpu else "",
        note=busy.note,
    )
