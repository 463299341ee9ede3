"""Requests per second and their times, of gmp-atl serve against the bare model in a loop.

    python -m benchmarks.serve

Server, clients and the bare model use the same cores. In each round the bare model runs first, then 1, 8 and
64 clients ask the server, each one recording after the other. The bare model gets decoded samples; the server
also receives and decodes files. Weights are random, recordings are noise of 2 to 5 s.
"""

from __future__ import annotations

import tempfile
from argparse import ArgumentParser, Namespace
from collections import defaultdict
from pathlib import Path

from benchmarks.harness.command import Benchmark
from benchmarks.harness.machine import usable_cores
from benchmarks.harness.rounds import Spread

CLIENTS = (1, 8, 64)
KEYS = {
    "bare_per_s": "recordings per second of the bare model, one by one",
    **{
        f"{key}_{n}": f"{n} clients: {what}"
        for n in CLIENTS
        for key, what in (
            ("per_s", "answered requests per second"),
            ("share_of_bare", "requests per second over the bare model's"),
            ("p50_s", "median time of a request, s"),
            ("p99_s", "99th percentile of the time of a request, s"),
            ("p99_over_batch", "that over the median time of a batch"),
            ("refused", "requests answered with 503"),
        )
    },
}


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--size", default="base", metavar="NAME", help="of the model")
    parser.add_argument("--recordings", type=int, default=24, metavar="N", help="different ones")
    parser.add_argument("--seconds", type=float, default=30.0, metavar="X", help="of each part")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of all parts")


def _measure(args: Namespace) -> dict[str, float | Spread | None]:
    from benchmarks.subjects.serving import BareModel, load, recordings, server, write_model
    from gmp_atl_dist.device import pin_threads

    pin_threads(usable_cores())
    found: defaultdict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="gmp-atl-bench-") as root:
        folder, files = Path(root) / "model", recordings(args.recordings)
        write_model(folder, args.size)
        bare = BareModel(folder, files)
        bare.per_s(0)
        with server(folder) as port:
            load(port, files, 8, 2.0)
            for _ in range(args.rounds):
                bare_per_s = bare.per_s(args.seconds)
                found["bare_per_s"].append(bare_per_s)
                for clients in CLIENTS:
                    seen = load(port, files, clients, args.seconds)
                    for key, value in (
                        ("per_s", seen.per_s),
                        ("share_of_bare", seen.per_s / bare_per_s),
                        ("p50_s", seen.p50_s),
                        ("p99_s", seen.p99_s),
                        ("p99_over_batch", seen.p99_s / seen.batch_s),
                        ("refused", float(seen.refused)),
                    ):
                        found[f"{key}_{clients}"].append(value)
                    print(
                        f"{clients:2} clients: {seen.per_s:.2f}/s, bare {bare_per_s:.2f}/s; p50 "
                        f"{seen.p50_s:.2f} s, p99 {seen.p99_s:.2f} s, batch {seen.batch_s:.2f} s",
                        flush=True,
                    )
    return {key: Spread.of(values) for key, values in found.items()}


BENCHMARK = Benchmark(
    name="serve",
    about=__doc__,
    keys=KEYS,
    quick={"size": "small", "seconds": 6.0, "rounds": 1},
    add_options=_add_options,
    measure=_measure,
)

if __name__ == "__main__":
    raise SystemExit(BENCHMARK.run())
