"""Part 3: what one part of extraction gives the GPU to do: kernels, copies, waits, and its idle time."""

from __future__ import annotations

import time
from collections.abc import Iterable

from torch.profiler import ProfilerActivity, profile

from benchmarks.harness.gpu import Place, finish
from benchmarks.harness.parts import Rows
from benchmarks.inputs.spoken import recordings
from benchmarks.subjects.gpu_extraction import LAYERS
from benchmarks.subjects.gpu_frames import Features

_SHOWN = 10
_WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
_US = 1e6


def measure(place: Place, rows: Rows) -> None:
    """Profile a warm part of HuBERT-base with lengths of IEMOCAP; on a CPU, operators for kernels."""
    device = place.choose()
    size, part_s = ("base", 600.0) if place.on_gpu else ("tiny", 8.0)
    table = recordings("iemocap", part_s)
    features = Features(size, LAYERS[size], device)
    features(table)
    finish(device)
    activities = [ProfilerActivity.CPU]
    if place.on_gpu:
        activities.append(ProfilerActivity.CUDA)
    # The first profile of a process starts CUPTI, which takes seconds.
    with profile(activities=activities):
        finish(device)
    started_s = time.perf_counter()
    features(table)
    finish(device)
    plain_s = time.perf_counter() - started_s
    with profile(activities=activities) as recorded:
        started_s = time.perf_counter()
        features(table)
        finish(device)
        profiled_s = time.perf_counter() - started_s
    rows.add(
        "wall time of a part, not profiled", 1000 * plain_s, "ms", note=f"{part_s:g} s of audio"
    )
    # Annotations are drawn on the device's line as well, and are no work.
    events = [e for e in recorded.events() or () if not getattr(e, "is_user_annotation", False)]
    kind = "CUDA" if place.on_gpu else "CPU"
    spans = [
        (e.name, e.time_range.start, e.time_range.end) for e in events if e.device_type.name == kind
    ]
    copies = [span for span in spans if span[0].startswith(("Memcpy", "Memset"))]
    kernels = len(spans) - len(copies)
    rows.add(
        "kernels of a part" if place.on_gpu else "operators of a part, no GPU",
        kernels,
        key="kernels_per_part",
        goal="< 800",
    )
    covered_s = union((start, end) for _, start, end in spans) / _US
    rows.add(
        "share of a part's time in which kernels or copies run",
        covered_s / profiled_s if place.on_gpu else None,
        key="profile_busy",
        goal=">= 0.95",
        note="" if place.on_gpu else "no GPU",
    )
    rows.add("time in kernels and copies", 1000 * covered_s, "ms")
    for name in ("Memcpy HtoD", "Memcpy DtoH", "Memcpy DtoD"):
        rows.add(f"copies, {name}", sum(span[0].startswith(name) for span in copies))
    rows.add(
        "copies from or to memory that is not pinned", sum("Pageable" in span[0] for span in copies)
    )
    rows.add("times that the host waits for the GPU", sum(e.name in _WAITS for e in events))
    totals: dict[str, tuple[float, int]] = {}
    for name, start, end in spans:
        taken, count = totals.get(name, (0.0, 0))
        totals[name] = (taken + end - start, count + 1)
    longest = sorted(totals.items(), key=lambda item: -item[1][0])[:_SHOWN]
    for name, (taken, count) in longest:
        rows.add(f"{name[:80]}, {count} times", taken / 1000, "ms")


def union(spans: Iterable[tuple[float, float]]) -> float:
    """The length that spans cover together; what several cover counts once."""
    covered, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, until))
        until = max(until, end)
    return covered
