"""Frame features: ours against one forward pass per utterance and against plain padded batches.

    python -m benchmarks.extract --corpus ../shared/data/nemo

Subjects have the same threads, weights (HuBERT-base size, random), layer and recordings. Each runs in a
process of its own, one after another in every round:

- one by one: fairseq's way, one utterance per forward pass, appended to a float32 .npy
- padded: transformers as it comes, batches of 16 in the order of the corpus, padded and masked
- bare: our forward pass alone, nothing is stored
- pipeline: ours as it runs, with Ray, readers, storage and hashing; measured from the second part to
  the last, after Ray's processes have started

The share of the matmul rate is the model's arithmetic divided by the time, as a share of the rate of a
2048-cubed float32 matrix product in the same process.
"""

from __future__ import annotations

import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.harness.child import run_alone
from benchmarks.harness.command import Benchmark, positive
from benchmarks.harness.machine import usable_cores
from benchmarks.harness.rounds import Spread, interleaved, ratios

if TYPE_CHECKING:
    from benchmarks.subjects.extraction import Extraction

KEYS = {
    "matmul_share": "arithmetic of the bare forward pass over the matmul rate",
    "matmul_share_pipeline": "the same of the pipeline",
    "speedup_vs_one_by_one": "time per audio second of one by one over that of bare",
    "speedup_vs_padded": "time per audio second of padded over that of bare",
    "overhead_share": "time that the pipeline adds to bare, as a share of bare",
    "times_real_time": "audio seconds per second, bare",
    "times_real_time_pipeline": "audio seconds per second, pipeline",
    "audio_s_per_cpu_s_pipeline": "audio seconds per CPU second, pipeline",
    "peak_rss_mib": "largest resident memory of a process of the pipeline, MiB",
    "bytes_per_audio_s": "bytes that the pipeline stores per audio second",
}


def _add_options(parser: ArgumentParser) -> None:
    from benchmarks.inputs.speech import add_corpus_options

    add_corpus_options(parser)
    parser.add_argument("--model", default="random:base", help="model.source")
    parser.add_argument(
        "--layer", type=positive, default=9, metavar="N", help="the last one computed"
    )
    parser.add_argument(
        "--rounds", type=positive, default=3, metavar="N", help="repetitions of every measurement"
    )
    parser.add_argument(
        "--threads",
        type=positive,
        default=usable_cores(),
        metavar="N",
        help="cores of each subject",
    )


def _measure(args: Namespace) -> dict[str, Spread]:
    from benchmarks.inputs.speech import prepare_alone
    from benchmarks.subjects.extraction import SUBJECTS, extract_once

    with tempfile.TemporaryDirectory(prefix="gmp-atl-bench-") as root:
        prepare_alone(args.corpus, args.recordings, root, args.model)
        calls = {
            subject: partial(
                run_alone,
                partial(extract_once, subject, root, args.layer, args.threads),
                args.threads,
            )
            for subject in SUBJECTS
        }
        measured = interleaved(calls, args.rounds)
    return _figures(measured)


def _figures(measured: dict[str, list[Extraction]]) -> dict[str, Spread]:
    def spread(subject: str, value: Callable[[Extraction], float]) -> Spread:
        return Spread.of(value(e) for e in measured[subject])

    for subject in measured:
        print(
            f"{subject:11} times real time {spread(subject, lambda e: e.times_real_time):.3g}, "
            f"of the matmul rate {spread(subject, lambda e: e.matmul_share):.2%}, "
            f"audio s per CPU s {spread(subject, lambda e: e.audio_s_per_cpu_s):.3g}, "
            f"peak MiB {spread(subject, lambda e: e.peak_rss_mib).median:.0f}, "
            f"bytes per audio s {spread(subject, lambda e: e.bytes / e.audio_s).median:.0f}"
        )

    def slower(subject: str, than: str) -> Spread:
        """How many times the time per audio second."""
        speeds = {s: [e.times_real_time for e in measured[s]] for s in (subject, than)}
        return ratios(speeds[than], speeds[subject])

    overhead = slower("pipeline", "bare")
    return {
        "matmul_share": spread("bare", lambda e: e.matmul_share),
        "matmul_share_pipeline": spread("pipeline", lambda e: e.matmul_share),
        "speedup_vs_one_by_one": slower("one by one", "bare"),
        "speedup_vs_padded": slower("padded", "bare"),
        "overhead_share": Spread(overhead.median - 1, overhead.smallest - 1, overhead.largest - 1),
        "times_real_time": spread("bare", lambda e: e.times_real_time),
        "times_real_time_pipeline": spread("pipeline", lambda e: e.times_real_time),
        "audio_s_per_cpu_s_pipeline": spread("pipeline", lambda e: e.audio_s_per_cpu_s),
        "peak_rss_mib": spread("pipeline", lambda e: e.peak_rss_mib),
        "bytes_per_audio_s": spread("pipeline", lambda e: e.bytes / e.audio_s),
    }


BENCHMARK = Benchmark(
    name="extract",
    about=__doc__,
    keys=KEYS,
    quick={"recordings": 8, "rounds": 1},
    add_options=_add_options,
    measure=_measure,
)

if __name__ == "__main__":
    raise SystemExit(BENCHMARK.run())
