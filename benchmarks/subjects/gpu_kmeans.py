"""Part 6: an iteration of k-means on each engine, beside the roofline, and whether the engines agree.

The roofline is the time of the product of frames and centroids at the matmul rate, or of one read of the
frames at the rate of a copy, whichever is longer.

Shape suffixes: M frames, D hidden, K clusters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial

import faiss
import numpy as np
import torch

from benchmarks.harness.gpu import DeviceName, Place, matmul_tflops, seconds_of
from benchmarks.harness.machine import usable_cores
from benchmarks.harness.parts import Rows
from benchmarks.inputs.vectors import DIM, structured
from gmp_atl_dist.clustering.assignment import make_assigner, nearest_ids
from gmp_atl_dist.clustering.assignment_step import fit_in_memory
from gmp_atl_dist.clustering.engines import Engine as EngineName
from gmp_atl_dist.clustering.state import Fit
from gmp_atl_dist.device import faiss_gpus
from gmp_atl_dist.errors import GmpAtlError

_SHORT, _LONG = 1, 4
"""Iterations of two fits; their difference has no start-up in it."""
_TOO_SHORT = "too short to measure on a busy machine"
ON_CPU = "FAISS, CPU"
_CPU_FRAMES = 500_000
_AGREE_FRAMES, _AGREE_ITERATIONS = 200_000, 5

Engine = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""(frames fp16 [M, D], first centroids fp32 [K, D], iterations) to centroids [K, D]."""


def measure(place: Place, rows: Rows) -> None:
    """10 million frames of 768 values, k = 500 and 2,000; a CPU engine gets a part of them."""
    device = place.choose()
    begun_s = time.monotonic()
    count, ks = (10_000_000, (500, 2000)) if place.on_gpu else (3000, (20, 50))
    x_MD = _frames(count)
    bandwidth = _copy_bytes_per_s(device)
    fp32 = matmul_tflops(device, torch.float32) * 1e12
    rows.add("rate of a copy within the device", bandwidth / 1e9, "GB/s")
    all_engines = engines(place.device)
    for k, name in zip(ks, ("k500", "k2000"), strict=True):
        start_KD = x_MD[:: count // k][:k].astype(np.float32)
        product_s, read_s = 2.0 * count * k * DIM / fp32, 2.0 * count * DIM / bandwidth
        roofline_s = max(product_s, read_s)
        rows.add(
            f"k = {k}: roofline of an iteration",
            roofline_s,
            "s",
            note=f"fp32 products {product_s:.3g} s, one read of fp16 frames {read_s:.3g} s",
        )
        best = 0.0
        for engine, fit in all_engines.items():
            on_cpu = engine.endswith("CPU")
            if time.monotonic() - begun_s > 0.7 * place.seconds:
                rows.add(f"k = {k}, {engine}", None, note="no time left")
                continue
            some_MD = x_MD[:_CPU_FRAMES] if on_cpu else x_MD
            try:
                measured_s = _iteration_s(fit, some_MD, start_KD)
            except GmpAtlError as e:  # no engine for this card is a result as well
                rows.add(f"k = {k}, {engine}", None, note=str(e)[:200])
                continue
            if measured_s is None:
                rows.add(f"k = {k}, {engine}", None, note=_TOO_SHORT)
                continue
            seconds = measured_s * count / len(some_MD)
            share = roofline_s / seconds
            if on_cpu != place.on_gpu:
                best = max(best, share)
            note = f"share of the roofline {share:.1%}"
            note += f"; from {len(some_MD)} frames" if len(some_MD) < count else ""
            rows.add(f"k = {k}, {engine}: an iteration", seconds, "s", note=note)
        rows.add(
            f"k = {k}: share of the roofline of the package's engine on this device",
            best or None,
            key=f"kmeans_roofline_{name}",
            goal=">= 0.6",
            note="" if best else "no engine on this GPU was measured",
        )
        _faiss_own(place, rows, x_MD[: min(count, _CPU_FRAMES)], k)
    _agreement(rows, all_engines, x_MD[: min(count, _AGREE_FRAMES)], ks[0])


def _frames(count: int) -> np.ndarray:
    """fp16 [count, 768] near a curved surface: blocks of it, shifted so that no two are the same."""
    block_MD = structured(min(count, 100_000)).astype(np.float16)
    x_MD = np.empty((count, DIM), np.float16)
    for number, first in enumerate(range(0, count, len(block_MD))):
        some = block_MD[: count - first]
        x_MD[first : first + len(some)] = np.roll(some, number, axis=1)
    return x_MD


def _copy_bytes_per_s(device: torch.device) -> float:
    """Bytes read per second by a copy within the device's memory, which writes as many."""
    x = torch.empty(1 << (31 if device.type == "cuda" else 24), dtype=torch.uint8, device=device)
    y = torch.empty_like(x)
    return 2 * x.numel() / seconds_of(lambda: y.copy_(x), device)


def engines(device: DeviceName) -> dict[str, Engine]:
    """The package's engines. One that this machine lacks raises a :class:`GmpAtlError`."""
    found: dict[str, Engine] = {}
    if device == "cuda":
        found["FAISS, GPU"] = partial(_fit, gpus=1, engine="faiss")
        found["PyTorch, GPU"] = partial(_fit, gpus=1, engine="torch")
    else:
        found["PyTorch, CPU"] = partial(_fit, gpus=0, engine="torch")
    found[ON_CPU] = partial(_fit, gpus=0, engine="faiss")
    return found


def _fit(
    x_MD: np.ndarray, start_KD: np.ndarray, iterations: int, *, gpus: int, engine: EngineName
) -> np.ndarray:
    fit = Fit("benchmark", len(start_KD), seed=0, iterations=iterations, tolerance=0.0)
    (state,) = fit_in_memory(
        [fit],
        {"all": x_MD},
        threads=usable_cores(),
        gpus=gpus,
        engine=engine,
        initial=[start_KD],
    )
    return state.centroids_KD


def _iteration_s(fit: Engine, x_MD: np.ndarray, start_KD: np.ndarray) -> float | None:
    taken: dict[int, float] = {}
    for iterations in (_SHORT, _LONG):
        started_s = time.perf_counter()
        fit(x_MD, start_KD, iterations)
        taken[iterations] = time.perf_counter() - started_s
    return _per_iteration_s(taken[_SHORT], taken[_LONG])


def _per_iteration_s(short_s: float, long_s: float) -> float | None:
    """None where the start-up varies more than the iterations take."""
    return (long_s - short_s) / (_LONG - _SHORT) if long_s > short_s else None


def _faiss_own(place: Place, rows: Rows, x_MD: np.ndarray, k: int) -> None:
    """``faiss.Kmeans``, on the GPU where this build has one."""
    gpu = bool(place.on_gpu and faiss_gpus())
    wide_MD = x_MD.astype(np.float32)

    def train(iterations: int) -> float:
        kmeans = faiss.Kmeans(
            x_MD.shape[1], k, niter=iterations, gpu=gpu, max_points_per_centroid=len(x_MD)
        )
        started_s = time.perf_counter()
        kmeans.train(wide_MD)
        return time.perf_counter() - started_s

    seconds = _per_iteration_s(train(_SHORT), train(_LONG))
    rows.add(
        f"k = {k}, faiss.Kmeans itself on the {'GPU' if gpu else 'CPU'}: an iteration",
        seconds,
        "s",
        note=_TOO_SHORT if seconds is None else f"of {len(x_MD)} frames",
    )


def _agreement(rows: Rows, all_engines: Mapping[str, Engine], x_MD: np.ndarray, k: int) -> None:
    """Labels of all engines after some iterations from the same start."""
    start_KD = x_MD[:: len(x_MD) // k][:k].astype(np.float32)
    labels: dict[str, np.ndarray] = {}
    for name, fit in all_engines.items():
        try:
            centroids_KD = fit(x_MD, start_KD, _AGREE_ITERATIONS)
        except GmpAtlError as e:
            rows.add(f"k = {k}, {name}: labels", None, note=str(e)[:200])
            continue
        labels[name] = nearest_ids(make_assigner(centroids_KD), x_MD)
    expected = labels[ON_CPU]
    worst = min(float((found == expected).mean()) for found in labels.values())
    rows.add(
        f"k = {k}: labels equal to those of FAISS on the CPU after {_AGREE_ITERATIONS} iterations",
        worst,
        key="kmeans_agreement",
        note=f"the worst of {len(labels) - 1} engines",
    )
