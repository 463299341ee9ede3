"""Prediction: gmp-atl's Predictor against transformers.pipeline; time to the first result; memory.

    python -m benchmarks.predict --corpus ../shared/data/nemo
    python -m benchmarks.predict --quick

The model has random weights, which cost as much as trained ones. Both sides read an exported folder, the
same files in the same order, and compute on the same number of threads. Each subject is a process of its
own, one after another in every round. Reading and decoding count; loading the model does not.

- ours: Predictor.stream with its default batch, one forward pass per thread
- pipeline-1, pipeline-16: pipeline("audio-classification") with batches of 1 and of 16. It gets decoded
  waves: given a path, it would start ffmpeg for each file

The time to the first result is that of the command gmp-atl predict, from its start to its first line. Memory
is the peak of the command on a list of files, with the model of --memory-model, whose size does not matter.
"""

from __future__ import annotations

import tempfile
from argparse import ArgumentParser, Namespace
from functools import partial

from benchmarks.harness.child import run_alone
from benchmarks.harness.command import Benchmark, at_least, positive
from benchmarks.harness.machine import usable_cores
from benchmarks.harness.rounds import Spread, interleaved, ratios

OURS, RIVALS = "ours", ("pipeline-1", "pipeline-16")
KEYS = {
    "files_per_s": "recordings per second, ours",
    "cpu_s_per_file": "CPU seconds per recording, ours",
    "pipeline_1_files_per_s": "recordings per second, pipeline with batches of 1",
    "pipeline_1_cpu_s_per_file": "CPU seconds per recording of it",
    "pipeline_16_files_per_s": "recordings per second, pipeline with batches of 16",
    "pipeline_16_cpu_s_per_file": "CPU seconds per recording of it",
    "ratio_vs_pipeline": "rate of ours over that of the faster pipeline of the round",
    "cpu_ratio_vs_pipeline": "CPU seconds of the cheaper pipeline of the round over ours",
    "largest_difference": "of a probability between ours and pipeline-1",
    "first_result_s": "seconds from the start of the command to its first line",
    "peak_mib_few": "peak memory of the command on 100 recordings, MiB",
    "peak_mib_many": "the same on --memory-files recordings",
}
_FEW = 100


def _add_options(parser: ArgumentParser) -> None:
    from benchmarks.inputs.classifier import add_recording_options

    add_recording_options(parser, files=500)
    parser.add_argument("--size", default="base", help="HuBERT: tiny, mini, small, base, large")
    parser.add_argument("--memory-model", default="tiny", help="size of HuBERT for memory")
    parser.add_argument(
        "--memory-files", type=at_least(_FEW), default=10_000, metavar="N", help="recordings"
    )
    parser.add_argument(
        "--warm-up", type=positive, default=16, metavar="N", help="files that do not count"
    )
    parser.add_argument(
        "--rounds", type=positive, default=2, metavar="N", help="repetitions of every measurement"
    )


def _measure(args: Namespace) -> dict[str, float | Spread]:
    from benchmarks.inputs.classifier import recordings, write_exported_classifier
    from benchmarks.subjects.predicting import command_peak_mib, first_result_s

    with tempfile.TemporaryDirectory(prefix="gmp-atl-bench-") as folder:
        paths = recordings(args.corpus, args.files, folder)
        models = {size: f"{folder}/{size}" for size in {args.size, args.memory_model}}
        for size, place in models.items():
            run_alone(partial(write_exported_classifier, place, size))
        model = models[args.size]
        figures = _speeds(model, paths, args.warm_up, args.rounds)
        first = interleaved({"first": partial(first_result_s, model, paths[:8])}, args.rounds)
        figures["first_result_s"] = Spread.of(first["first"])
        small = models[args.memory_model]
        peaks = {
            name: partial(command_peak_mib, small, paths, files, folder)
            for name, files in (("peak_mib_few", _FEW), ("peak_mib_many", args.memory_files))
        }
        measured = interleaved(peaks, args.rounds)
        return figures | {name: Spread.of(values) for name, values in measured.items()}


def _speeds(model: str, paths: list[str], warm_up: int, rounds: int) -> dict[str, float | Spread]:
    from benchmarks.subjects.predicting import largest_difference, predict_once

    threads = usable_cores()

    def call(subject: str) -> partial:
        once = partial(predict_once, subject, model, paths, warm_up, threads)
        return partial(run_alone, once, threads=1 if subject == OURS else threads)

    measured = interleaved({s: call(s) for s in (OURS, *RIVALS)}, rounds)
    rates = {s: [r.files_per_s for r in results] for s, results in measured.items()}
    cpu = {s: [r.cpu_s_per_file for r in results] for s, results in measured.items()}
    better = [max(pair) for pair in zip(*(rates[s] for s in RIVALS), strict=True)]
    cheaper = [min(pair) for pair in zip(*(cpu[s] for s in RIVALS), strict=True)]
    figures: dict[str, float | Spread] = {
        "files_per_s": Spread.of(rates[OURS]),
        "cpu_s_per_file": Spread.of(cpu[OURS]),
        "ratio_vs_pipeline": ratios(rates[OURS], better),
        "cpu_ratio_vs_pipeline": ratios(cheaper, cpu[OURS]),
        "largest_difference": largest_difference(measured[OURS][0], measured[RIVALS[0]][0]),
    }
    for subject in RIVALS:
        key = subject.replace("-", "_")
        figures[f"{key}_files_per_s"] = Spread.of(rates[subject])
        figures[f"{key}_cpu_s_per_file"] = Spread.of(cpu[subject])
    return figures


BENCHMARK = Benchmark(
    name="predict",
    about=__doc__,
    keys=KEYS,
    quick={"files": 100, "size": "tiny", "memory_files": 2_000, "rounds": 1, "warm_up": 8},
    add_options=_add_options,
    measure=_measure,
)

if __name__ == "__main__":
    raise SystemExit(BENCHMARK.run())
