"""The engines of ``benchmarks.kmeans``: an iteration of each from the same start, and whether they agree."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.harness.machine import usable_cores
from benchmarks.harness.rounds import MeasurementError
from benchmarks.inputs.vectors import DIM, structured
from gmp_atl_dist.clustering.assignment import FaissAssigner, nearest_ids
from gmp_atl_dist.clustering.assignment_step import fit_in_memory
from gmp_atl_dist.clustering.engines import Engine
from gmp_atl_dist.clustering.state import Fit

_UPDATES = (1, 4)
"""Of a short and a long fit. Their difference has neither the start nor the first copy in it."""
_COPIED = 100_000
"""Different frames; more are copies of them, shifted."""
_AGREE_FRAMES = 100_000
FAISS, TORCH = "FAISS", "torch"
OWN = "faiss.Kmeans"


@dataclass(frozen=True)
class Iteration:
    """Seconds of an iteration of each engine, and the lowest share of frames with FAISS's label on a CPU."""

    seconds: dict[str, float]
    agreement: float


def iterations(frames: int, k: int, gpus: int) -> Iteration:
    """Both engines on the CPU, or on GPUs where FAISS sees them; and FAISS's own k-means there.

    Raises:
        MeasurementError: there are fewer frames than clusters.
    """
    if frames < k:
        raise MeasurementError(f"{frames} frames are fewer than k = {k}")
    x_MD = _frames(frames)
    start_KD = x_MD[:: frames // k][:k].astype(np.float32)
    calls: dict[str, Callable[[int], np.ndarray]] = {}
    for name, engine in _engines(gpus).items():
        calls[name] = lambda updates, engine=engine: _ours(x_MD, start_KD, updates, engine, gpus)
    seconds = {name: _iteration_s(call) for name, call in calls.items()}
    seconds[OWN] = _iteration_s(lambda updates: _own(x_MD, start_KD, updates, gpus))
    some_MD = x_MD[:_AGREE_FRAMES]
    cpu_KD = _ours(some_MD, start_KD, _UPDATES[1], "faiss", 0)
    expected = nearest_ids(FaissAssigner(cpu_KD), some_MD)
    shares: list[float] = []
    for engine in _engines(gpus).values():
        found_KD = _ours(some_MD, start_KD, _UPDATES[1], engine, gpus)
        shares.append(float((nearest_ids(FaissAssigner(found_KD), some_MD) == expected).mean()))
    return Iteration(seconds, min(shares))


def _engines(gpus: int) -> dict[str, Engine]:
    from gmp_atl_dist.device import faiss_gpus

    engines: dict[str, Engine] = {TORCH: "torch"}
    return {FAISS: "faiss", **engines} if faiss_gpus() >= gpus else engines


def _frames(count: int) -> np.ndarray:
    """fp16 [count, 768]."""
    block_MD = structured(min(count, _COPIED)).astype(np.float16)
    x_MD = np.empty((count, DIM), np.float16)
    for number, first in enumerate(range(0, count, len(block_MD))):
        some_MD = block_MD[: count - first]
        x_MD[first : first + len(some_MD)] = np.roll(some_MD, number, axis=1)
    return x_MD


def _iteration_s(call: Callable[[int], np.ndarray]) -> float:
    taken_s: list[float] = []
    for updates in _UPDATES:
        started_s = time.perf_counter()
        call(updates)
        taken_s.append(time.perf_counter() - started_s)
    # With few frames the start varies more than iterations take.
    return max(taken_s[1] - taken_s[0], 1e-6) / (_UPDATES[1] - _UPDATES[0])


def _ours(
    x_MD: np.ndarray, start_KD: np.ndarray, updates: int, engine: Engine, gpus: int
) -> np.ndarray:
    fit = Fit("benchmark", len(start_KD), seed=0, iterations=updates, tolerance=0.0)
    (state,) = fit_in_memory(
        [fit],
        {"all": x_MD},
        threads=usable_cores(),
        gpus=gpus,
        engine=engine,
        initial=[start_KD],
    )
    return state.centroids_KD


def _own(x_MD: np.ndarray, start_KD: np.ndarray, updates: int, gpus: int) -> np.ndarray:
    """FAISS's own loop; it takes fp32 and, with GPUs, sends the frames again in each iteration."""
    import faiss

    from gmp_atl_dist.device import faiss_gpus

    kmeans = faiss.Kmeans(
        x_MD.shape[1],
        len(start_KD),
        niter=updates,
        max_points_per_centroid=len(x_MD),
        gpu=gpus if gpus and faiss_gpus() >= gpus else False,
    )
    kmeans.train(x_MD.astype(np.float32), init_centroids=start_KD)
    return np.asarray(kmeans.centroids)


def show(k: int, frames: int, of_rounds: Sequence[Iteration]) -> None:
    """Print the median of each engine."""
    print(f"\n{frames} frames x {DIM}, k = {k}: seconds of an iteration")
    for name in of_rounds[0].seconds:
        print(f"  {name:14} {np.median([of_one.seconds[name] for of_one in of_rounds]):.4g}")
    print(f"  labels of FAISS on the CPU: {min(of_one.agreement for of_one in of_rounds):.2%}")
