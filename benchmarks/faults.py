"""The whole pipeline under random faults: does the same command, given again, end with the same results?

    python -m benchmarks.faults --runs 100
    python -m benchmarks.faults --runs 1 --seed 17          # one scenario again

Each run is a small experiment on synthetic speech, on three nodes (raylets of this machine) and a real S3
server behind a proxy. Every few seconds a random fault comes, of those below. When the driver ends with
anything but 0, the same command is given again. Where stored objects were damaged, gmp-atl verify and
gmp-atl repair --yes come before it. At the end the artefacts are compared with those of a run
without faults: the same bytes, and of trained stages the same losses to 1e-5. A run that takes longer than
--limit-s hangs. Only processes that a run has started itself are killed.
"""

from __future__ import annotations

import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness.child import run_alone
from benchmarks.harness.command import Benchmark, positive
from benchmarks.harness.rounds import Spread

if TYPE_CHECKING:
    from benchmarks.subjects.fault_run import Outcome

KEYS = {
    "runs": "runs that were disturbed",
    "finished": "of these, ended with 0 by giving the command again, within the limit",
    "equal": "of these, with the artefacts of the undisturbed run",
    "hung": "runs that did not end within the limit",
    "unexpected_exits": "attempts that ended with a code that no fault explains",
    "faults": "faults of all runs",
    "repairs": "times that gmp-atl repair has set damage aside",
    "attempts": "attempts per run",
    "parts_again_per_fault": "parts that were stored more than once, per fault",
    "wall_s_per_run": "seconds of a run with faults",
    "undisturbed_s": "seconds of the run without faults",
}


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--runs", type=positive, default=100, metavar="N", help="runs with faults")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the first run")
    parser.add_argument(
        "--every-s", type=float, default=6.0, metavar="S", help="mean seconds between faults"
    )
    parser.add_argument(
        "--most-faults",
        type=positive,
        default=8,
        metavar="N",
        help="of a run; then it is left alone",
    )
    parser.add_argument(
        "--limit-s",
        type=float,
        default=900.0,
        metavar="S",
        help="after which a run counts as hanging",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=10_000.0,
        metavar="M",
        help="begin no further run after so many minutes",
    )


def _measure(args: Namespace) -> Mapping[str, float | Spread]:
    from benchmarks.subjects.fault_run import disturbed, undisturbed
    from gmp_atl_dist.corpora.synth import write_synthetic_corpus

    began_s = time.monotonic()
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="gmp-atl-bench-") as folder:
        corpus = Path(folder) / "corpus"
        write_synthetic_corpus(corpus, utterances_per_speaker_and_emotion=2)
        expected, undisturbed_s = run_alone(partial(undisturbed, str(corpus)))
        print(f"without faults: {undisturbed_s:.0f} s", flush=True)
        for seed in range(args.seed, args.seed + args.runs):
            if time.monotonic() - began_s > 60 * args.minutes:
                break
            limits = {"most_faults": args.most_faults, "limit_s": args.limit_s}
            call = partial(disturbed, str(corpus), seed, expected, args.every_s, **limits)
            outcome = run_alone(call)
            _print(outcome)
            outcomes.append(outcome)
    return _figures(outcomes, undisturbed_s)


def _figures(outcomes: list[Outcome], undisturbed_s: float) -> dict[str, float | Spread]:
    from benchmarks.subjects.fault_run import DEFECTS

    faults = sum(len(o.faults) for o in outcomes)
    kinds = Counter(fault.partition(" s ")[2] for o in outcomes for fault in o.faults)
    for kind, count in sorted(kinds.items()):
        print(f"  {count:4} x {kind}")
    return {
        "runs": len(outcomes),
        "finished": sum(o.finished for o in outcomes),
        "equal": sum(o.finished and not o.different for o in outcomes),
        "hung": sum(not o.finished for o in outcomes),
        "unexpected_exits": sum(code in DEFECTS for o in outcomes for code in o.exit_codes),
        "faults": faults,
        "repairs": sum(o.repairs for o in outcomes),
        "attempts": Spread.of(o.attempts for o in outcomes),
        "parts_again_per_fault": sum(o.put_again for o in outcomes) / max(faults, 1),
        "wall_s_per_run": Spread.of(o.wall_s for o in outcomes),
        "undisturbed_s": undisturbed_s,
    }


def _print(outcome: Outcome) -> None:
    state = "finished" if outcome.finished else "NOT FINISHED"
    same = "equal" if not outcome.different else "; ".join(outcome.different)
    print(
        f"seed {outcome.seed}: {state} after {outcome.wall_s:.0f} s, {outcome.attempts} attempts, exit codes "
        f"{outcome.exit_codes}, {same}, {outcome.put_again} parts stored again, {outcome.repairs} repairs"
    )
    for fault in outcome.faults:
        print(f"  {fault}")
    if outcome.log:
        print(f"  end of the output:\n{outcome.log}")
    print(end="", flush=True)


BENCHMARK = Benchmark(
    name="faults",
    about=__doc__,
    keys=KEYS,
    quick={"runs": 1, "most_faults": 2, "limit_s": 150.0},
    add_options=_add_options,
    measure=_measure,
)

if __name__ == "__main__":
    raise SystemExit(BENCHMARK.run())
