"""How far features of a long recording in windows are from those of one pass over all of it.

    python -m benchmarks.windows --corpus ../shared/data/nemo

Recordings of the training speakers are joined to one of some minutes. HuBERT-base size, random weights.
With trained weights attention reaches further, or less far, so measure the model that you use. Nothing
is timed and nothing is random, so there is one round.
"""

from __future__ import annotations

import tempfile
from argparse import ArgumentParser, Namespace
from functools import partial

from benchmarks.harness.child import run_alone
from benchmarks.harness.command import Benchmark
from benchmarks.harness.machine import usable_cores

LAYERS = (6, 9, 12)
WINDOWS = ((60, 5), (30, 5), (30, 0), (15, 2))
"""Seconds of a window, and of context on either side of it."""
CLUSTERS = 50
KEYS = {
    f"{key}_{window}s_{context}s_layer{layer}": f"windows of {window} s, context {context} s, {what}"
    for key, what in (
        ("labels_equal", f"share of labels equal at k = {CLUSTERS}"),
        ("mean_difference", "mean difference over mean magnitude"),
    )
    for window, context in WINDOWS
    for layer in LAYERS
}


def _add_options(parser: ArgumentParser) -> None:
    from benchmarks.inputs.speech import add_corpus_options

    add_corpus_options(parser)
    parser.add_argument(
        "--minutes", type=float, default=4.0, metavar="X", help="of the joined recording"
    )


def _measure(args: Namespace) -> dict[str, float]:
    from benchmarks.inputs.speech import prepare_alone
    from benchmarks.subjects.windowed import compare_windows

    with tempfile.TemporaryDirectory(prefix="gmp-atl-bench-") as root:
        prepare_alone(args.corpus, args.recordings, root, "random:base")
        call = partial(compare_windows, root, args.minutes, LAYERS, WINDOWS, CLUSTERS)
        measured = run_alone(call, usable_cores())
    figures: dict[str, float] = {}
    for row in measured:
        print(
            f"windows of {row.window_s} s with {row.context_s} s of context, layer {row.layer:2}: "
            f"mean {row.mean_difference:.4f}, worst {row.worst_difference:.3f} of the mean "
            f"magnitude; {row.labels_equal:.2%} of labels equal at k = {CLUSTERS}"
        )
        name = f"{row.window_s}s_{row.context_s}s_layer{row.layer}"
        figures[f"labels_equal_{name}"] = row.labels_equal
        figures[f"mean_difference_{name}"] = row.mean_difference
    return figures


BENCHMARK = Benchmark(
    name="windows",
    about=__doc__,
    keys=KEYS,
    quick={"minutes": 1.1, "recordings": 20},
    add_options=_add_options,
    measure=_measure,
)

if __name__ == "__main__":
    raise SystemExit(BENCHMARK.run())
