"""The proof on a GPU: correctness, rates, memory and whole runs, in at most 25 minutes on one card.

    python -m benchmarks.gpu --out runs/gpu
    python -m benchmarks.gpu --parts correctness kmeans

Needs no network. Each part is a process of its own with a time limit; a part that fails is named, and the
others run. DIR/gpu.json and DIR/gpu.md have all figures, with the name of the card. Without a GPU every
part runs on the CPU at tiny size: that shows that the script works, and no figure of it means anything.

- correctness: frames, labels, the gradients of an update and a curve of 200 updates, against the CPU in fp32
- extraction: audio per second and share of the matmul rate of HuBERT-base and large, by length and batch
- profile: kernels, copies, waits and idle time of one part of extraction
- training: updates per second, share of the matmul rate and memory, by audio of a pass
- layers: convolutional encoder and attention alone, beside cuDNN and PyTorch's attention
- kmeans: 10 million frames, k = 500 and 2,000, each engine beside the roofline
- memory: too little memory for a batch, and for a recording
- demo: the demo through Ray, with one GPU for extraction and training
- hidden: gpus = 0 everywhere on a machine with a GPU

The exit code is 0 if every part is done; else 100 + the number of the first that failed, from 1.
"""

from __future__ import annotations

import json
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

from benchmarks.harness.child import run_alone
from benchmarks.harness.command import Benchmark, positive
from benchmarks.harness.gpu import Card, Place, Subject, find_card
from benchmarks.harness.parts import Part, markdown, run_part
from benchmarks.harness.rounds import Spread

_FAILED = 100


PARTS = {
    "correctness": Subject("gpu_correctness", 240),
    "extraction": Subject("gpu_extraction", 270),
    "profile": Subject("gpu_profile", 60),
    "training": Subject("gpu_training", 300),
    "layers": Subject("gpu_layers", 60),
    "kmeans": Subject("gpu_kmeans", 210),
    "memory": Subject("gpu_memory", 60),
    "demo": Subject("gpu_runs", 180, "measure_demo"),
    "hidden": Subject("gpu_runs", 120, "measure_hidden"),
}
"""Seconds that add up to 25 minutes."""
KEYS = {
    "parts_done": "parts that ended without a failure",
    "first_failed": "number of the first part that failed, from 1; 0 if none did",
    "frames_error_fp32": "frames of the model in fp32: relative error against the CPU",
    "frames_error_bf16": "the same in bf16",
    "frames_error_extracted": "frames as extraction stores them: the same",
    "labels_equal_k50": "share of labels equal to the CPU's, k = 50",
    "labels_equal_k500": "share of labels equal to the CPU's, k = 500",
    "gradient_error_fp32": "gradients of an update in fp32: relative error against the CPU",
    "gradient_error_bf16": "the same in bf16",
    "curve_difference": "curve of a training: largest relative difference from the CPU's",
    "matmul_bf16_tflops": "rate of a large matrix product in bf16, TFLOP/s",
    "matmul_fp32_tflops": "rate of a large matrix product in fp32 without TF32, TFLOP/s",
    "extract_mfu_base": "extraction, base: share of the matmul rate",
    "extract_mfu_large": "extraction, large: share of the matmul rate",
    "extract_times_real_time_base": "extraction, base: audio seconds per second",
    "extract_times_real_time_large": "extraction, large: audio seconds per second",
    "extract_busy": "extraction, base: share of the time in which the GPU is busy",
    "kernels_per_part": "kernels (on a CPU: operators) of a part of extraction",
    "profile_busy": "share of a part's time in which kernels or copies run",
    "train_mfu_base": "training, base: best share of the matmul rate",
    "train_mfu_large": "training, large: best share of the matmul rate",
    "conv_vs_library": "below the first layer: time of cuDNN's over ours",
    "layer_products_share": "one layer: time of its products over all of it",
    "kmeans_roofline_k500": "an iteration of k-means, k = 500: share of the roofline",
    "kmeans_roofline_k2000": "the same, k = 2,000",
    "kmeans_agreement": "share of labels on which the engines agree",
    "backoff_ok": "1: features are the same when memory runs out",
    "demo_s": "seconds of the demo through Ray",
    "hidden_ok": "share of kinds of workers with gpus = 0 that compute on the CPU",
}


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="to run")
    parser.add_argument("--out", default="runs/gpu", metavar="DIR", help="for gpu.json and gpu.md")
    parser.add_argument(
        "--minutes", type=positive, default=25, metavar="N", help="for all parts together"
    )
    parser.add_argument(
        "--cpu", action="store_true", help="the CPU, at tiny size, beside a GPU too"
    )


def _measure(args: Namespace) -> dict[str, float | Spread | None]:
    card = run_alone(find_card)
    if args.cpu:
        card = Card("CPU", "cpu", None, None, card.cuda, card.torch)
    print(f"card: {card.name}, torch {card.torch}, CUDA {card.cuda}", flush=True)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    share = 60 * args.minutes / sum(subject.seconds for subject in PARTS.values())
    done: list[Part] = []
    with tempfile.TemporaryDirectory(prefix="gmp-atl-bench-") as folder:
        for name, subject in PARTS.items():
            if name in args.parts:
                limit_s = subject.seconds * share
                call = partial(subject, Place(card.device, limit_s))
                done.append(run_part(name, call, Path(folder), limit_s))
                # After each part: a machine that is taken away leaves what was measured.
                write(out, card, done)
    print(f"\nwritten: {out / 'gpu.json'}, {out / 'gpu.md'}")
    return figures(done)


def write(out: Path, card: Card, parts: list[Part]) -> None:
    """``gpu.json`` and ``gpu.md`` in the folder ``out``."""
    content = {"card": asdict(card), "parts": [asdict(part) for part in parts]}
    (out / "gpu.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    memory = "" if card.memory_gib is None else f" of {card.memory_gib} GiB"
    machine = f"Card: {card.name}{memory}; torch {card.torch}; CUDA {card.cuda}."
    if card.device == "cpu":
        machine += " **Tiny sizes on a CPU: no figure means anything.**"
    (out / "gpu.md").write_text(markdown(f"Measured on {card.name}", machine, parts))


def figures(parts: list[Part]) -> dict[str, float | Spread | None]:
    """The figures of the last line."""
    failed = [1 + list(PARTS).index(part.name) for part in parts if part.error]
    found: dict[str, float | Spread | None] = {
        row.key: row.value for part in parts for row in part.rows if row.key
    }
    return {
        **found,
        "parts_done": len(parts) - len(failed),
        "first_failed": min(failed, default=0),
    }


def exit_code(found: Mapping[str, float | Spread | None]) -> int:
    """0, or 100 + the number of the first part that failed."""
    first = found["first_failed"]
    return _FAILED + int(first) if isinstance(first, int | float) and first else 0


BENCHMARK = Benchmark(
    name="gpu",
    about=__doc__,
    keys=KEYS,
    quick={
        "cpu": True,
        "parts": [name for name in PARTS if name != "demo"],
        "out": "runs/gpu-quick",
    },
    add_options=_add_options,
    measure=_measure,
    exit_code=exit_code,
)

if __name__ == "__main__":
    raise SystemExit(BENCHMARK.run())
