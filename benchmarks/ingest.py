"""How fast a corpus is ingested in each layout, against a plain loop, ``datasets`` and Lhotse.

    python -m benchmarks.ingest --clips 2000 --workers 2

Clips are noise in syllables, 16-bit WAV of 24 kHz by default, as loose files with a table, as tar shards
(WebDataset) and as Parquet shards (Hugging Face). The subjects take turns, each in a process of its own:

- plain: reads loose files, decodes with soundfile, resamples with soxr and rounds to 16 bits: the same
  samples. It has a process per worker, and stores, hashes, measures and checks nothing;
- folder: ingest of each layout from a folder into a folder, with its checks, digests, measures and parts;
- s3: the same from an S3 server of this machine into the same server, with every request counted;
- datasets: Dataset.map over Audio(16 kHz) into 16-bit samples, from loose files and from Parquet, with a
  process per worker. Only the call of map is measured. Tar shards become the same table as Parquet;
- lhotse: CutSet.to_shar of cuts at 16 kHz as 16-bit WAV, with a job per worker. Only that call is measured.

Rates are hours of audio per hour and core, with a core for each process. Ray is up already. The start of its
workers takes seconds and is in the rates of ingest; steady rates are those from the first stored part to the
last, and show what a long corpus gets. CPU seconds depend less on what else the machine does. Those of ingest
are of workers, driver and Ray, without the S3 server. The last two are left out where they are not installed
(the extra "benchmarks", and FFmpeg for datasets); one line says what is missing.
"""

from __future__ import annotations

import shutil
import tempfile
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness.child import run_alone
from benchmarks.harness.command import Benchmark, positive
from benchmarks.harness.rounds import MeasurementError, Spread, interleaved, ratios

if TYPE_CHECKING:
    from benchmarks.subjects.ingesting import Ingested

_LAYOUTS = ("loose", "tar", "parquet")
_OURS = tuple(f"{where}_{layout}" for where in ("folder", "s3") for layout in _LAYOUTS)
_HALF_A_SAMPLE_H = 0.5 / 16_000 / 3600
_RATE = "hours of audio per hour and core:"
_CPU = "CPU seconds of an hour of audio:"
_OTHERS = {
    "datasets_loose": "datasets.map of loose files",
    "datasets_parquet": "datasets.map of Parquet shards",
    "lhotse": "Lhotse Shar export of loose files",
}
KEYS = {
    "plain_h_per_h_core": f"{_RATE} soundfile and soxr",
    **{f"{name}_h_per_h_core": f"{_RATE} ingest, with the start of workers" for name in _OURS},
    **{f"{name}_steady_h_per_h_core": f"{_RATE} ingest, after the first part" for name in _OURS},
    **{f"{name}_steady_over_plain": "ingest after the first part / plain loop" for name in _OURS},
    "start_s": "seconds until ingest of loose files in a folder has stored its first part",
    "plain_cpu_s_per_h": f"{_CPU} soundfile and soxr",
    **{f"{name}_cpu_s_per_h": f"{_CPU} ingest after the first part" for name in _OURS},
    **{f"{name}_workers_cpu_s_per_h": f"{_CPU} workers of ingest alone" for name in _OURS},
    **{f"{name}_plain_cpu_over": "CPU time of the plain loop / of ingest" for name in _OURS},
    **{f"{name}_plain_cpu_over_workers": "the same / of its workers alone" for name in _OURS},
    **{f"{name}_h_per_h_core": f"{_RATE} {what}" for name, what in _OTHERS.items()},
    **{f"{name}_cpu_s_per_h": f"{_CPU} {what}" for name, what in _OTHERS.items()},
    "loose_over_datasets": "ingest of a folder of loose files, with its start / datasets.map",
    "parquet_over_datasets": "ingest of a folder of Parquet, with its start / datasets.map",
    "loose_over_lhotse": "ingest of a folder of loose files, with its start / Lhotse Shar",
    "loose_steady_over_datasets": "ingest of loose files after the first part / datasets.map",
    "parquet_steady_over_datasets": "ingest of Parquet after the first part / datasets.map",
    "loose_steady_over_lhotse": "ingest of loose files after the first part / Lhotse Shar",
    **{
        f"s3_{layout}_requests_per_h": "requests to the object store per hour of audio"
        for layout in _LAYOUTS
    },
}


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--clips", type=positive, default=2000, metavar="N", help="recordings")
    parser.add_argument("--workers", type=positive, default=2, metavar="N", help="of each subject")
    parser.add_argument(
        "--rate-hz", type=positive, default=24_000, metavar="HZ", help="of the recordings"
    )
    parser.add_argument(
        "--part-s", type=positive, default=120, metavar="S", help="of audio in a part of the store"
    )
    parser.add_argument("--rounds", type=positive, default=3, metavar="N", help="of all subjects")


def _measure(args: Namespace) -> dict[str, Spread]:
    from benchmarks.harness.s3_requests import counted_requests
    from benchmarks.inputs.clips import LAYOUTS, write_clips
    from benchmarks.subjects.ingesting import ingest, plain_loops
    from gmp_atl_dist.store.filesystem import Store

    asked: dict[str, list[int]] = {name: [] for name in _OURS}
    with (
        tempfile.TemporaryDirectory(prefix="gmp-atl-bench-") as folder,
        counted_requests() as (uri, requests),
    ):
        write_clips(folder, args.clips, args.rate_hz)
        for path in sorted(Path(folder).glob("*/*")):
            Store.open(f"{uri}/{path.parent.name}").put(path.name, path.read_bytes())
        plain = partial(plain_loops, f"{folder}/loose", args.workers)
        subjects: dict[str, Callable[[], Ingested]] = {"plain": plain}
        for name in _OURS:
            where, _, layout = name.partition("_")
            base = folder if where == "folder" else uri
            subjects[name] = partial(
                _ingested,
                f"{base}/{layout}",
                f"{base}/root-{layout}",
                partial(
                    ingest,
                    adapter=LAYOUTS[layout],
                    workers=args.workers,
                    part_audio_s=args.part_s,
                ),
                requests,
                asked[name],
            )
        measured = interleaved(subjects | _rivals(folder, args.workers), args.rounds)
    return _figures(measured, asked)


def _rivals(folder: str, workers: int) -> dict[str, Callable[[], Ingested]]:
    """Those that are installed; says what is missing for the others."""
    from benchmarks.subjects.ingest_rivals import (
        datasets_map,
        lhotse_shar,
        why_no_datasets,
        why_no_lhotse,
    )

    rivals: dict[str, Callable[[], Ingested]] = {}
    if missing := run_alone(why_no_datasets):
        print(f"datasets is left out: {missing}", flush=True)
    else:
        for layout in ("loose", "parquet"):
            call = partial(datasets_map, f"{folder}/{layout}", layout, workers)
            rivals[f"datasets_{layout}"] = partial(run_alone, call, 1)
    if missing := run_alone(why_no_lhotse):
        print(f"lhotse is left out: {missing}", flush=True)
    else:
        rivals["lhotse"] = partial(
            run_alone, partial(lhotse_shar, f"{folder}/loose", workers), threads=1
        )
    return rivals


def _ingested(
    corpus: str,
    root: str,
    ingest: Callable[..., Ingested],
    requests: Counter[str],
    asked: list[int],
) -> Ingested:
    """Into a new root, which is removed afterwards. Appends its requests to ``asked``."""
    from gmp_atl_dist.store.filesystem import Store

    before = requests.total()
    try:
        result = run_alone(partial(ingest, corpus=corpus, root=root))
        asked.append(requests.total() - before)
        return result
    finally:
        base, _, name = root.rpartition("/")
        if root.startswith("s3://"):
            Store.open(base).delete(name)
        else:
            shutil.rmtree(root, ignore_errors=True)


def _figures(measured: dict[str, list[Ingested]], asked: dict[str, list[int]]) -> dict[str, Spread]:
    audio_h = [one.audio_h for name in ("plain", *_OURS) for one in measured[name]]
    if max(audio_h) - min(audio_h) > _HALF_A_SAMPLE_H:
        raise MeasurementError(
            f"subjects made from {min(audio_h)} to {max(audio_h)} hours of the same clips; repair the one "
            f"that leaves some out"
        )
    rates = {name: [one.rate for one in runs] for name, runs in measured.items()}
    cpu = {
        name: [3600 * one.cpu_h / one.audio_h for one in runs]
        for name, runs in measured.items()
        if name not in _OURS
    }
    steady = {name: [one.steady_rate for one in measured[name]] for name in _OURS}
    figures = {f"{name}_h_per_h_core": Spread.of(values) for name, values in rates.items()}
    for name, values in steady.items():
        figures[f"{name}_steady_h_per_h_core"] = Spread.of(values)
        figures[f"{name}_steady_over_plain"] = ratios(values, rates["plain"])
        everything = [3600 * one.steady_cpu_h / one.steady_audio_h for one in measured[name]]
        workers = [3600 * one.workers_cpu_h / one.steady_audio_h for one in measured[name]]
        figures[f"{name}_cpu_s_per_h"] = Spread.of(everything)
        figures[f"{name}_workers_cpu_s_per_h"] = Spread.of(workers)
        figures[f"{name}_plain_cpu_over"] = ratios(cpu["plain"], everything)
        figures[f"{name}_plain_cpu_over_workers"] = ratios(cpu["plain"], workers)
    figures |= {f"{name}_cpu_s_per_h": Spread.of(values) for name, values in cpu.items()}
    figures["start_s"] = Spread.of(one.start_s for one in measured["folder_loose"])
    for rival, layout, title in (
        ("datasets_loose", "loose", "datasets"),
        ("datasets_parquet", "parquet", "datasets"),
        ("lhotse", "loose", "lhotse"),
    ):
        if rival in rates:
            ours = f"folder_{layout}"
            figures[f"{layout}_over_{title}"] = ratios(rates[ours], rates[rival])
            figures[f"{layout}_steady_over_{title}"] = ratios(steady[ours], rates[rival])
    for layout in _LAYOUTS:
        name = f"s3_{layout}"
        pairs = zip(asked[name], measured[name], strict=True)
        figures[f"{name}_requests_per_h"] = Spread.of(count / one.audio_h for count, one in pairs)
    return figures


BENCHMARK = Benchmark(
    name="ingest",
    about=__doc__,
    keys=KEYS,
    quick={"clips": 200, "rounds": 1},
    add_options=_add_options,
    measure=_measure,
)

if __name__ == "__main__":
    raise SystemExit(BENCHMARK.run())
