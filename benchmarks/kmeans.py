"""k-means against other libraries: CPU time, mean squared distance, scales, workers, memory, engines.

    python -m benchmarks.kmeans --corpus ../shared/data/nemo

Fits: each is a process of one thread, interleaved. CPU seconds of the fit alone are measured, and the
mean squared distance of all frames to their centroids is computed in the same way for all. Vectors:
100,000 x 768 that lie near a curved surface of 64 dimensions, and layer 9 of HuBERT-base (random
weights) of two speakers. fairseq's k-means is scikit-learn's MiniBatchKMeans with the defaults of its
learn_kmeans.py. --parts chooses tables.

Engines: an iteration of FAISS, of torch and of FAISS's own loop, from the same start, on all cores or, with
--gpus, on GPUs. On a large GPU:

    python -m benchmarks.kmeans --parts engines --gpus 1 --engine-frames 10000000 --engine-ks 500 2000
"""

from __future__ import annotations

import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness.child import run_alone
from benchmarks.harness.command import Benchmark, positive
from benchmarks.harness.machine import usable_cores
from benchmarks.harness.rounds import Spread, interleaved, ratios

if TYPE_CHECKING:
    from benchmarks.subjects.fits import Fitted

KS = (100, 500)
_STORED = {
    "multiscale": "multiscale_ratio",
    "distributed": "distributed_ratio",
    "memory": "peak_over_budget",
}
PARTS = ("fits", *_STORED, "engines")
_TABLES = {"": "structured vectors", "_speech": "speech"}
KEYS = {
    **{
        f"cpu_ratio_k{k}{suffix}": f"{table}, k = {k}: CPU of fairseq's k-means over ours"
        for suffix, table in _TABLES.items()
        for k in KS
    },
    **{
        f"distance_ratio_k{k}{suffix}": f"{table}, k = {k}: our mean squared distance over fairseq's"
        for suffix, table in _TABLES.items()
        for k in KS
    },
    "multiscale_ratio": "CPU of three scales of a layer together over the sum of each alone",
    "distributed_ratio": "CPU of all processes with four workers over that with one",
    "torch_over_faiss": "seconds of an iteration, largest k: our torch engine over our FAISS engine",
    "own_over_ours": "the same: FAISS's own loop over the faster of our engines",
    "engines_agree": "lowest share of frames with the label of FAISS on the CPU after 4 updates",
    "peak_over_budget": "peak memory of a worker over its budget, with more frames than fit into it",
}


def _add_options(parser: ArgumentParser) -> None:
    from benchmarks.inputs.speech import add_corpus_options

    add_corpus_options(parser)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="tables")
    parser.add_argument(
        "--rounds", type=positive, default=3, metavar="N", help="repetitions of every measurement"
    )
    parser.add_argument(
        "--fairseq-rounds",
        type=positive,
        default=1,
        metavar="N",
        help="of fairseq's fits, which take minutes each",
    )
    parser.add_argument(
        "--frames", type=positive, default=100_000, metavar="N", help="structured vectors"
    )
    parser.add_argument(
        "--distributed-frames",
        type=positive,
        default=200_000,
        metavar="N",
        help="vectors of the distributed fit",
    )
    parser.add_argument(
        "--iterations", type=positive, default=25, metavar="N", help="of the distributed fit"
    )
    parser.add_argument(
        "--memory-times",
        type=positive,
        default=10,
        metavar="N",
        help="frames of the memory part, in multiples of the worker's budget of 0.5 GiB",
    )
    parser.add_argument(
        "--engine-frames", type=positive, default=200_000, metavar="N", help="of the engines part"
    )
    parser.add_argument(
        "--engine-ks",
        type=positive,
        nargs="+",
        default=[500],
        metavar="K",
        help="clusters of the engines part",
    )
    parser.add_argument(
        "--gpus", type=int, default=0, metavar="N", help="GPUs of the engines part; 0: the CPU"
    )


def _measure(args: Namespace) -> dict[str, Spread]:
    from benchmarks.inputs.speech import prepare_alone
    from benchmarks.subjects import fits, stored_fits

    figures: dict[str, Spread] = {}
    with tempfile.TemporaryDirectory(prefix="gmp-atl-bench-") as name:
        folder = Path(name)
        if "fits" in args.parts:
            structured, speech = folder / "structured.npy", folder / "speech.npy"
            run_alone(partial(fits.save_structured, structured, args.frames))
            figures |= _fits("", structured, args)
            prepare_alone(args.corpus, args.recordings, f"{name}/speech", "random:base")
            run_alone(partial(fits.save_speech, speech, f"{name}/speech"), usable_cores())
            figures |= _fits("_speech", speech, args)
        stored = {
            "multiscale": partial(
                stored_fits.multiscale, folder / "multiscale", args.frames, args.rounds
            ),
            "distributed": partial(
                stored_fits.distributed,
                folder / "distributed",
                args.distributed_frames,
                args.iterations,
                args.rounds,
            ),
            "memory": partial(stored_fits.memory, folder / "memory", args.memory_times),
        }
        for part, key in _STORED.items():
            if part in args.parts:
                figures[key] = run_alone(stored[part], threads=1, show=True)
    if "engines" in args.parts:
        figures |= _engines(args)
    return figures


def _engines(args: Namespace) -> dict[str, Spread]:
    """An iteration of each engine, for each k; the figures are those of the largest."""
    from benchmarks.subjects import engines

    figures: dict[str, Spread] = {}
    agreements: list[float] = []
    for k in sorted(args.engine_ks):
        call = partial(engines.iterations, args.engine_frames, k, args.gpus)
        of_rounds = [run_alone(call, usable_cores()) for _ in range(args.rounds)]
        engines.show(k, args.engine_frames, of_rounds)
        agreements += [of_one.agreement for of_one in of_rounds]
        seconds = [of_one.seconds for of_one in of_rounds]
        ours = [[s[name] for name in (engines.FAISS, engines.TORCH) if name in s] for s in seconds]
        own = [s[engines.OWN] for s in seconds]
        figures["own_over_ours"] = ratios(own, [min(of_one) for of_one in ours])
        # Where FAISS has no GPU, there is nothing to compare torch with.
        if engines.FAISS in seconds[0]:
            figures["torch_over_faiss"] = ratios(
                [s[engines.TORCH] for s in seconds], [s[engines.FAISS] for s in seconds]
            )
    return figures | {"engines_agree": Spread.of([min(agreements)])}


def _fits(suffix: str, npy: Path, args: Namespace) -> dict[str, Spread]:
    """All subjects on the vectors of a file; prints a table."""
    from benchmarks.subjects.fits import FAIRSEQ, OURS, fit_once

    measured: dict[tuple[str, int], list[Fitted]] = {}
    for rounds, subjects in _rounds(args.rounds, args.fairseq_rounds):
        calls: dict[tuple[str, int], Callable[[], Fitted]] = {
            (subject, k): partial(run_alone, partial(fit_once, subject, k, npy), 1)
            for k in KS
            for subject in subjects
        }
        named = {f"{_TABLES[suffix]}, k = {k}, {subject}": subject for subject, k in calls}
        results = interleaved(dict(zip(named, calls.values(), strict=True)), rounds)
        for key, values in zip(calls, results.values(), strict=True):
            measured.setdefault(key, []).extend(values)
    print(f"\n{_TABLES[suffix]}: CPU seconds, mean squared distance")
    for (subject, k), values in sorted(measured.items(), key=lambda item: item[0][1]):
        distance = Spread.of(fit.mean_squared_distance for fit in values).median
        print(f"  k = {k:4} {subject:28} {_cpu_s(values):.2f}  {distance:.4f}")
    figures: dict[str, Spread] = {}
    for k in KS:
        theirs = measured[FAIRSEQ, k]
        ours = measured[OURS, k][: len(theirs)]
        figures[f"cpu_ratio_k{k}{suffix}"] = ratios(
            [fit.cpu_s for fit in theirs], [fit.cpu_s for fit in ours]
        )
        figures[f"distance_ratio_k{k}{suffix}"] = ratios(
            [fit.mean_squared_distance for fit in ours],
            [fit.mean_squared_distance for fit in theirs],
        )
    return figures


def _rounds(rounds: int, fairseq_rounds: int) -> list[tuple[int, list[str]]]:
    """(number of rounds, subjects in them): the first ones with fairseq's, the others without."""
    from benchmarks.subjects.fits import FAIRSEQ, FITS

    both = min(rounds, fairseq_rounds)
    return [(both, list(FITS)), (rounds - both, [name for name in FITS if name != FAIRSEQ])]


def _cpu_s(values: list[Fitted]) -> Spread:
    return Spread.of(fit.cpu_s for fit in values)


BENCHMARK = Benchmark(
    name="kmeans",
    about=__doc__,
    keys=KEYS,
    quick={
        "recordings": 6,
        "rounds": 1,
        "frames": 1500,
        "distributed_frames": 30_000,
        "iterations": 2,
        "memory_times": 2,
        "engine_frames": 20_000,
    },
    add_options=_add_options,
    measure=_measure,
)

if __name__ == "__main__":
    raise SystemExit(BENCHMARK.run())
