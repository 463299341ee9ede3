"""k-means against others: CPU time and mean_squared_distance, scales together, workers, memory.

    python -m benchmarks.kmeans --corpus ../shared/data/nemo

Subjects are processes of one thread each, interleaved; what is timed is the fit alone, in CPU seconds, and
mean_squared_distance is computed the same way for all. Vectors: 100,000 x 768 that lie near a curved surface of 64
dimensions, and layer 9 of HuBERT-base (random weights) for two speakers of nemo. fairseq's k-means is
scikit-learn's MiniBatchKMeans with the defaults of its ``learn_kmeans.py``. ``--parts`` chooses tables.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

_DIM = 768
_FRAMES = 100_000
_LATENT = 64
_KS = (100, 500)
_FAIRSEQ = "fairseq (MiniBatchKMeans)"
_SUBJECTS = ("ours", _FAIRSEQ, "faiss.Kmeans", "faiss.Kmeans, all frames", "faiss SuperKMeans")
_PARTS = ("fits", "multiscale", "distributed", "memory")


@dataclass(frozen=True)
class Found:
    cpu_s: float
    mean_squared_distance: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", help="folder of nemo; without it that table is left out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slow-rounds", type=int, default=1, help="of fairseq's, which take long")
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=_PARTS)
    parser.add_argument("--subject", nargs=3, metavar=("NAME", "K", "NPY"), help="one fit")
    args = parser.parse_args()
    if args.subject:
        name, k, npy = args.subject
        print(json.dumps(_one_fit(name, int(k), np.load(npy))))
        return
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="gmp-atl-") as folder:
        if "fits" in args.parts:
            npy = Path(folder) / "structured.npy"
            np.save(npy, structured(_FRAMES))
            figures |= _fits("structured", npy, args.rounds, args.slow_rounds, "")
            if args.corpus:
                npy = Path(folder) / "nemo.npy"
                np.save(npy, _speech(args.corpus, folder))
                figures |= _fits("nemo", npy, args.rounds, args.slow_rounds, "_nemo")
        if "multiscale" in args.parts:
            figures |= _multiscale(Path(folder) / "multiscale", args.rounds)
        if "distributed" in args.parts:
            figures |= _distributed(Path(folder) / "distributed", args.rounds)
        if "memory" in args.parts:
            figures |= _memory(Path(folder) / "memory")
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


def structured(frames: int, seed: int = 0) -> np.ndarray:
    """fp32 [frames, 768] that fp16 holds exactly, near a surface of few dimensions, with noise."""
    rng = np.random.default_rng(0)
    into = rng.normal(size=(_LATENT, _DIM)).astype(np.float32) / 8
    rng = np.random.default_rng([1, seed])
    latent = np.tanh(rng.normal(size=(frames, _LATENT)).astype(np.float32))
    noise = rng.standard_normal((frames, _DIM), dtype=np.float32)
    return (latent @ into + 0.1 * noise).astype(np.float16).astype(np.float32)


def _one_fit(name: str, k: int, x_MD: np.ndarray) -> dict[str, float]:
    """In this process, whose threads were limited before it began."""
    import faiss

    faiss.omp_set_num_threads(1)
    fit = {
        "ours": _ours,
        _FAIRSEQ: _fairseq,
        "faiss.Kmeans": lambda x, k: _faiss(x, k),
        "faiss.Kmeans, all frames": lambda x, k: _faiss(x, k, max_points_per_centroid=len(x)),
        "faiss SuperKMeans": _super,
    }[name]
    began_s = time.process_time()
    centroids_KD = fit(x_MD, k)
    cpu_s = time.process_time() - began_s
    squared, _ = faiss.knn(x_MD, np.ascontiguousarray(centroids_KD, dtype=np.float32), 1)
    return {"cpu_s": cpu_s, "mean_squared_distance": float(squared.astype(np.float64).mean())}


def _ours(x_MD: np.ndarray, k: int) -> np.ndarray:
    from gmp_atl_dist.clustering.assignment_step import fit_in_memory
    from gmp_atl_dist.clustering.lloyd import Fit

    (state,) = fit_in_memory([Fit("benchmark", k, seed=0)], {"all": x_MD}, threads=1)
    return state.centroids_KD


def _fairseq(x_MD: np.ndarray, k: int) -> np.ndarray:
    from sklearn.cluster import MiniBatchKMeans

    model = MiniBatchKMeans(
        n_clusters=k,
        init="k-means++",
        max_iter=100,
        batch_size=10_000,
        tol=0.0,
        max_no_improvement=100,
        n_init=20,  # pyright: ignore[reportArgumentType]  (a number as well)
        reassignment_ratio=0.0,
        compute_labels=False,
        random_state=0,
    )
    return np.asarray(model.fit(x_MD).cluster_centers_)


def _faiss(x_MD: np.ndarray, k: int, **keys: int) -> np.ndarray:
    import faiss

    kmeans = faiss.Kmeans(x_MD.shape[1], k, **keys)
    kmeans.train(x_MD)
    return np.asarray(kmeans.centroids)


def _super(x_MD: np.ndarray, k: int) -> np.ndarray:
    import faiss

    kmeans = faiss.SuperKmeans(  # pyright: ignore[reportAttributeAccessIssue]
        x_MD.shape[1], k, max_points_per_centroid=len(x_MD)
    )
    kmeans.train(x_MD)
    return np.asarray(kmeans.centroids).reshape(k, -1)


def _speech(corpus: str, folder: str) -> np.ndarray:
    """fp32 [M, 768]: layer 9 of two speakers, rounded to fp16 as it is stored."""
    import torch

    from benchmarks.speech import FOLD, context_at, prepare
    from gmp_atl_dist.audio import pcm16_to_float
    from gmp_atl_dist.models.packed import PackedHubert
    from gmp_atl_dist.models.source import hubert_from_files
    from gmp_atl_dist.store.readers import AudioReader, read_utterances

    root = f"{folder}/speech"
    prepare(corpus, root, "random:base")
    _, ingested, backbone = context_at(corpus, root)
    packed = PackedHubert(
        hubert_from_files(backbone.read_files()).eval(),
        (9,),
        window_frames=3000,
        context_frames=250,
    )
    reader = AudioReader(ingested)
    found: list[np.ndarray] = []
    for utterance in FOLD.select(read_utterances(ingested), "train"):
        wave_N = torch.from_numpy(pcm16_to_float(reader.samples(utterance)))
        (features,) = packed([wave_N], 3000)
        found.append(features[9].numpy().astype(np.float16))
    return np.concatenate(found).astype(np.float32)


def _fits(table: str, npy: Path, rounds: int, slow_rounds: int, suffix: str) -> dict[str, float]:
    one_thread = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    found: dict[tuple[str, int], list[Found]] = {}
    for number in range(rounds):
        for k in _KS:
            for name in _SUBJECTS:
                if name == _FAIRSEQ and number >= slow_rounds:
                    continue
                command = [sys.executable, "-m", "benchmarks.kmeans"]
                done = subprocess.run(
                    [*command, "--subject", name, str(k), str(npy)],
                    env={**os.environ, **one_thread},
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if done.returncode:
                    raise RuntimeError(f"{name} failed: {done.stderr[-800:]}")
                one = Found(**json.loads(done.stdout.splitlines()[-1]))
                found.setdefault((name, k), []).append(one)
                print(
                    f"{table}, k = {k}, {name}: {one.cpu_s:.2f} s, {one.mean_squared_distance:.4f}",
                    flush=True,
                )
    figures: dict[str, float] = {}
    print(
        f"\n{table}, {np.load(npy, mmap_mode='r').shape}: CPU seconds (median, range), mean_squared_distance"
    )
    for (name, k), many in sorted(found.items(), key=lambda item: item[0][1]):
        cpu_s, mean_squared_distance = _medians(many)
        low, high = min(f.cpu_s for f in many), max(f.cpu_s for f in many)
        print(
            f"  k = {k:4} {name:28} {cpu_s:8.2f} ({low:.2f} to {high:.2f})  {mean_squared_distance:.4f}"
        )
    for k in _KS:
        ours, theirs = _medians(found["ours", k]), _medians(found[_FAIRSEQ, k])
        figures[f"cpu_ratio_k{k}{suffix}"] = theirs[0] / ours[0]
        figures[f"inertia_ratio_k{k}{suffix}"] = ours[1] / theirs[1]
    return figures


def _medians(many: Sequence[Found]) -> tuple[float, float]:
    return statistics.median(f.cpu_s for f in many), statistics.median(
        f.mean_squared_distance for f in many
    )


def _multiscale(root: Path, rounds: int) -> dict[str, float]:
    """Three scales in the same passes over stored frames, against each in passes of its own."""
    from benchmarks.stored import STORED_LAYER, selection, store_structured
    from gmp_atl_dist.clustering.initialization import initial_centroids
    from gmp_atl_dist.clustering.lloyd import Fit, Request, State, run_fits
    from gmp_atl_dist.clustering.statistics import ClusterStatistics
    from gmp_atl_dist.config import ClusterWorkersConfig
    from gmp_atl_dist.device import pin_threads
    from gmp_atl_dist.inference.fitter import Fitter, FitterArgument
    from gmp_atl_dist.stages.cluster import pieces

    pin_threads(1)
    corpus, features = store_structured(root, _FRAMES)
    tasks = pieces(features, STORED_LAYER, 256)
    x_MD = structured(20_000)
    fits = [Fit("benchmark", k, 0, iterations=6, tolerance=0.0) for k in (50, 100, 200)]
    keys = {"init": "k-means++", "metric": "euclidean", "seed": 0, "what": "benchmark"}
    states = [State(initial_centroids(x_MD, fit.k, **keys)) for fit in fits]  # pyright: ignore[reportArgumentType]

    def cpu_s(which: Sequence[int]) -> float:
        # So little memory that parts are read anew in each pass.
        fitter = Fitter(
            FitterArgument(selection(corpus, features), ClusterWorkersConfig(memory_gib=0.5))
        )

        def over_all(requests: Sequence[Request]) -> list[ClusterStatistics]:
            totals = [ClusterStatistics.zero(*r.centroids_KD.shape) for r in requests]
            for task in tasks:
                found = cast("list[ClusterStatistics]", fitter(task, requests))
                for total, sums in zip(totals, found, strict=True):
                    total.add(sums)
            return totals

        began_s = time.process_time()
        for _ in run_fits([fits[i] for i in which], [states[i] for i in which], over_all):
            pass
        return time.process_time() - began_s

    ratios: list[float] = []
    for _ in range(rounds):
        together, alone = cpu_s([0, 1, 2]), [cpu_s([i]) for i in range(3)]
        ratios.append(together / sum(alone))
        print(f"three scales together {together:.2f} s, alone {[round(s, 2) for s in alone]} s")
    return {"multiscale_ratio": statistics.median(ratios)}


def _distributed(root: Path, rounds: int) -> dict[str, float]:
    """CPU of everything on a local Ray, four workers against one, start of the processes included."""
    from benchmarks.stored import fit_on_ray, store_structured

    corpus, features = store_structured(root, 2 * _FRAMES)
    ratios: list[float] = []
    for _ in range(rounds):
        runs = {n: fit_on_ray(corpus, features, workers=n, k=500, iterations=25) for n in (1, 4)}
        ratios.append(runs[4].cpu_s / runs[1].cpu_s)
        for n, run in runs.items():
            print(f"{n} workers: {run.cpu_s:.1f} s of CPU, {run.workers_cpu_s:.1f} of it theirs")
        assert_same(runs[1].codebooks, runs[4].codebooks)
    return {"distributed_ratio": statistics.median(ratios)}


def assert_same(a: Sequence[str], b: Sequence[str]) -> None:
    if list(a) != list(b):
        raise RuntimeError(f"codebooks differ: {a} and {b}")


def _memory(root: Path) -> dict[str, float]:
    """The peak of a worker that has a tenth of the memory that its frames take."""
    from benchmarks.stored import fit_on_ray, store_structured

    budget_gib = 0.5
    frames = int(10 * budget_gib * 2**30 / (2 * _DIM))
    corpus, features = store_structured(root, frames)
    run = fit_on_ray(corpus, features, workers=1, k=100, iterations=2, memory_gib=budget_gib)
    peak_gib = run.peak_bytes / 2**30
    print(
        f"{frames} frames, {frames * 2 * _DIM / 2**30:.2f} GiB, budget {budget_gib} GiB: peak "
        f"{peak_gib:.3f} GiB"
    )
    return {"peak_over_budget": peak_gib / budget_gib}


if __name__ == "__main__":
    main()
