"""One forward and backward pass of HuBERT, as it is trained: packed against padded, and what takes the time.

    python -m benchmarks.passes --model base
    python -m benchmarks.passes --model large --audio-s 60 --clip-s 60 --threads 2 --rounds 1 \\
        --subjects packed checkpointed

The clips are noise of 0.8 to 1.2 times the mean length, and the weights are random. Every measurement is a
process of its own: one pass to warm up, then the one that counts, in CPU seconds. There is no loop around it,
no exchange of gradients and no optimizer; benchmarks.train measures those.

- packed: clips one behind another, without padding, as every trained stage computes them
- padded: the reference that the packed pass is tested against, with exact padding
- checkpointed: packed, with activations computed again in the backward pass
  (runtime.train.gradient_checkpointing)

The profile counts, for one packed pass, the CPU time that operators of PyTorch spend in themselves. Its
groups add up to 1.
"""

from __future__ import annotations

import statistics
from argparse import ArgumentParser, Namespace
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.harness.child import run_alone
from benchmarks.harness.command import Benchmark, positive
from benchmarks.harness.rounds import Spread, interleaved, ratios

if TYPE_CHECKING:
    from benchmarks.subjects.model_pass import Pass

SUBJECTS = ("packed", "padded", "checkpointed")
GROUPS = {
    "products": "matrix products and convolutions",
    "copies": "copies, concatenation and gathering of rows",
    "activations": "GELU and its gradient",
    "elementwise": "additions, dropout and other products of elements",
    "norms": "normalisation and softmax",
    "rest": "everything else",
}
KEYS = {
    "speedup": "CPU seconds of the padded pass over those of the packed one",
    "matmul_share_packed": "arithmetic of the model over CPU time and matmul rate, packed",
    "matmul_share_padded": "the same, padded",
    "cpu_s_packed": "CPU seconds of a pass, packed",
    "cpu_s_padded": "the same, padded",
    "cpu_s_checkpointed": "the same, packed with activations computed again",
    "wall_s_packed": "seconds of a pass, packed",
    "wall_s_checkpointed": "the same, with activations computed again",
    "peak_mib_packed": "peak memory of the process, packed, MiB",
    "peak_mib_padded": "the same, padded",
    "peak_mib_checkpointed": "the same, with activations computed again",
    **{f"profile_{group}": f"share of a packed pass: {what}" for group, what in GROUPS.items()},
}


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--model", default="base", help="size of HuBERT: tiny, mini, small, base or large"
    )
    parser.add_argument(
        "--audio-s", type=float, default=20.0, metavar="S", help="seconds of audio of the pass"
    )
    parser.add_argument(
        "--clip-s", type=float, default=2.5, metavar="S", help="mean length of a clip, in seconds"
    )
    parser.add_argument("--dropout", type=float, default=0.1, metavar="P", help="in the encoder")
    parser.add_argument("--threads", type=positive, default=1, metavar="N", help="of the process")
    parser.add_argument(
        "--rounds", type=positive, default=3, metavar="N", help="repetitions of every measurement"
    )
    parser.add_argument(
        "--subjects", nargs="+", default=["packed", "padded"], choices=SUBJECTS, help="to measure"
    )


def _measure(args: Namespace) -> dict[str, float | Spread]:
    from benchmarks.subjects.model_pass import Clips, measure_pass, profile_pass

    clips = Clips(args.model, args.audio_s, args.clip_s, args.dropout)
    calls = {
        subject: partial(run_alone, partial(measure_pass, subject, clips), args.threads)
        for subject in args.subjects
    }
    measured = interleaved(calls, args.rounds)
    figures: dict[str, float | Spread] = {}
    for subject, passes in measured.items():
        _print(subject, passes)
        figures[f"cpu_s_{subject}"] = Spread.of(p.cpu_s for p in passes)
        figures[f"peak_mib_{subject}"] = Spread.of(p.peak_mib for p in passes)
        if subject != "padded":
            figures[f"wall_s_{subject}"] = Spread.of(p.wall_s for p in passes)
        if subject != "checkpointed":
            figures[f"matmul_share_{subject}"] = Spread.of(p.matmul_share for p in passes)
    if {"packed", "padded"} <= measured.keys():
        padded, packed = ([p.cpu_s for p in measured[x]] for x in ("padded", "packed"))
        figures["speedup"] = ratios(padded, packed)
    if "packed" in measured:
        shares = run_alone(partial(profile_pass, clips), args.threads)
        figures |= {f"profile_{group}": share for group, share in shares.items()}
    return figures


def _print(subject: str, passes: list[Pass]) -> None:
    print(
        f"  {subject:12} {Spread.of(p.cpu_s for p in passes):.3f} CPU s, "
        f"{Spread.of(p.wall_s for p in passes):.3f} s, "
        f"{Spread.of(p.matmul_share for p in passes):.1%} of the matmul rate, "
        f"{statistics.median(p.peak_mib for p in passes):.0f} MiB"
    )


BENCHMARK = Benchmark(
    name="passes",
    about=__doc__,
    keys=KEYS,
    quick={"model": "tiny", "audio_s": 5.0, "rounds": 1, "subjects": list(SUBJECTS)},
    add_options=_add_options,
    measure=_measure,
)

if __name__ == "__main__":
    raise SystemExit(BENCHMARK.run())
