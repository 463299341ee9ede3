"""How fast a corpus of loose files is ingested, against a plain loop over the same files.

    python -m benchmarks.ingest --clips 2000 --workers 2

Clips are noise in syllables, 16-bit WAV of 24 kHz by default. Three subjects take
turns, each in a process of its own:

- the plain loop reads, decodes with soundfile, resamples with soxr and rounds to 16 bits, in one thread. It
  stores nothing and checks nothing;
- ingest from a folder into a folder, with its checks, digests, measures and parts. Ray is up already, and the
  start of its workers is measured;
- ingest from an S3 server of this machine into the same server, with every request counted.

Rates are hours of audio per hour and core: of the one process, and of each worker.
"""

from __future__ import annotations

import tempfile
from argparse import ArgumentParser, Namespace
from functools import partial

from benchmarks.harness.child import run_alone
from benchmarks.harness.command import Benchmark, positive
from benchmarks.harness.rounds import Spread, interleaved, ratios

KEYS = {
    "plain_h_per_h_core": "hours of audio per hour: one process of soundfile and soxr",
    "folder_h_per_h_core": "hours of audio per hour and worker: ingest of a folder",
    "s3_h_per_h_core": "hours of audio per hour and worker: ingest from S3 into S3",
    "folder_over_plain": "ingest of a folder per worker, divided by the plain loop",
    "s3_over_plain": "ingest from S3 per worker, divided by the plain loop",
    "s3_requests_per_h": "requests to the object store per hour of audio",
}


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--clips", type=positive, default=2000, metavar="N", help="recordings")
    parser.add_argument("--workers", type=positive, default=2, metavar="N", help="of ingest")
    parser.add_argument(
        "--rate-hz", type=positive, default=24_000, metavar="HZ", help="of the recordings"
    )
    parser.add_argument("--rounds", type=positive, default=3, metavar="N", help="of all subjects")


def _measure(args: Namespace) -> dict[str, Spread]:
    from benchmarks.subjects.ingesting import ingest_folder, ingest_s3, plain_loop, write_clips

    with tempfile.TemporaryDirectory(prefix="gmp-atl-bench-") as folder:
        write_clips(folder, args.clips, args.rate_hz)
        subjects = {
            "plain": partial(run_alone, partial(plain_loop, folder), threads=1),
            "folder": partial(run_alone, partial(ingest_folder, folder, args.workers)),
            "s3": partial(run_alone, partial(ingest_s3, folder, args.workers)),
        }
        measured = interleaved(subjects, args.rounds)
    rates = {name: [one.rate for one in runs] for name, runs in measured.items()}
    return {
        **{f"{name}_h_per_h_core": Spread.of(values) for name, values in rates.items()},
        "folder_over_plain": ratios(rates["folder"], rates["plain"]),
        "s3_over_plain": ratios(rates["s3"], rates["plain"]),
        "s3_requests_per_h": Spread.of(one.requests / one.audio_h for one in measured["s3"]),
    }


BENCHMARK = Benchmark(
    name="ingest",
    about=__doc__,
    keys=KEYS,
    quick={"clips": 120, "rounds": 1},
    add_options=_add_options,
    measure=_measure,
)

if __name__ == "__main__":
    raise SystemExit(BENCHMARK.run())
