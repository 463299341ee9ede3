"""k-means on each engine from one start, memory that runs out, and copies of a part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.devices import needs_gpu
from torch.profiler import ProfilerActivity, profile

from benchmarks.harness.gpu import Place
from benchmarks.harness.parts import Rows
from benchmarks.inputs.spoken import recordings
from benchmarks.inputs.vectors import structured
from benchmarks.subjects import gpu_memory
from benchmarks.subjects.gpu_frames import Features
from benchmarks.subjects.gpu_kmeans import ON_CPU, engines
from gmp_atl_dist.clustering.assignment import make_assigner, nearest_ids

pytest_plugins = ["support.devices"]


@pytest.mark.parametrize("name", [pytest.param("cuda", marks=needs_gpu)])
def test_the_engine_of_a_gpu_agrees_with_that_of_the_cpu(name: str) -> None:
    x_MD = structured(200_000).astype(np.float16)
    start_KD = x_MD[::1000].astype(np.float32)
    ours, theirs = (
        engines("cuda")[engine](x_MD, start_KD, 5) for engine in ("PyTorch, GPU", ON_CPU)
    )
    assert np.abs(ours - theirs).max() <= 1e-3 * np.abs(theirs).max()
    labels = [nearest_ids(make_assigner(centroids_KD), x_MD) for centroids_KD in (ours, theirs)]
    assert (labels[0] == labels[1]).mean() >= 0.999


def test_memory_that_runs_out_changes_no_feature(device: torch.device, tmp_path: Path) -> None:
    rows = Rows(tmp_path / "memory.jsonl")
    try:
        gpu_memory.measure(Place("cuda" if device.type == "cuda" else "cpu", 60), rows)
    finally:
        if device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0)
    figures = {row.key: row.value for row in rows.read() if row.key}
    named = [row.value for row in rows.read() if "never fits" in row.what]
    assert figures["backoff_ok"] == 1
    assert named == [1]


@pytest.mark.parametrize("name", [pytest.param("cuda", marks=needs_gpu)])
def test_copies_of_a_part_are_pinned(name: str) -> None:
    """A copy from or to pageable memory waits for the GPU, and goes at a fraction of the rate."""
    from gmp_atl_dist.device import choose_accelerator

    choose_accelerator("cuda")
    try:
        features, table = Features("tiny", [2], torch.device(name)), recordings("iemocap", 60.0)
        features(table)
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
            features(table)
            torch.cuda.synchronize()
    finally:
        choose_accelerator("cpu")
    copies = [event.name for event in recorded.events() or () if "Memcpy" in event.name]
    assert copies
    samples = [copy for copy in copies if "Pageable" in copy]
    # Numbers of frames and the like are a few bytes; samples and features are one copy per batch and layer.
    assert len(samples) <= len(copies) // 2
