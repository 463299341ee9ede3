"""What each arm of the method is worth on real speech: a sweep over arms, folds and seeds, and a floor.

    python -m benchmarks.quality --config sweeps/quality

The first arm of the sweep is the baseline. Every other arm is compared with it on the same utterances:
bootstrap over speakers, the same draws for all arms, and Holm's correction over the arms. The floor is a
support vector machine on cepstra and F0 (needs the extra bench). A sweep that was stopped resumes; --stored
runs nothing, and shows the folds and seeds that all arms have done. Without --config it is a small experiment
on synthetic voices: its figures say nothing about speech.
"""

from __future__ import annotations

import tempfile
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness.command import Benchmark
from benchmarks.harness.rounds import MeasurementError, Spread

if TYPE_CHECKING:
    from gmp_atl_dist.config.sweep import Sweep
    from gmp_atl_dist.statistics.comparing import ComparedArm, Comparison

KEYS = {
    "uar_baseline": "UAR of the first arm; mean and spread over seeds",
    "uar_arm": "UAR of --arm; mean and spread over seeds",
    "uar_floor": "UAR of cepstra, F0 and SVM",
    "uar_difference": "of --arm to the first arm",
    "uar_difference_low": "lower end over test speakers, 95 %",
    "uar_difference_high": "upper end",
    "p_holm": "of that difference, corrected for the number of arms",
    "folds": "folds that are compared",
    "seeds": "seeds that are compared",
    "test_utterances": "utterances that every arm was tested on",
    "test_speakers": "speakers of them",
}


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--config", help="sweep: TOML file or shipped name; without it a small experiment"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="of all arms"
    )
    parser.add_argument("--arm", default="gmp_atl", help="the arm of the last line")
    parser.add_argument(
        "--stored", action="store_true", help="run nothing; compare what the sweep has done so far"
    )
    parser.add_argument(
        "--floor", action=BooleanOptionalAction, default=True, help="the support vector machine"
    )


def _measure(args: Namespace) -> dict[str, float | Spread | None]:
    from benchmarks.subjects.quality_cells import FLOOR

    with _sweep(args.config, args.set) as sweep:
        if args.arm not in sweep.arms[1:]:
            raise MeasurementError(
                f"--arm {args.arm}: the arms beside the first are {', '.join(sweep.arms[1:])}"
            )
        comparison, folds = _compare(sweep, stored=args.stored, floor=args.floor)
    arms = {arm.name: arm for arm in comparison.arms}
    for line in _markdown(comparison):
        print(line)
    for sentence in comparison.sentences:
        print(sentence)
    difference = arms[args.arm].difference
    assert difference is not None, "it is not the baseline"
    uar = difference.scores["uar"]
    low, high = uar.interval
    return {
        "uar_baseline": _over_seeds(arms[comparison.baseline]),
        "uar_arm": _over_seeds(arms[args.arm]),
        "uar_floor": arms[FLOOR].scores["uar"].over_seeds.mean if FLOOR in arms else None,
        "uar_difference": uar.value,
        "uar_difference_low": low,
        "uar_difference_high": high,
        "p_holm": difference.p_holm,
        "folds": folds,
        "seeds": len(arms[args.arm].seeds),
        "test_utterances": comparison.num_utterances,
        "test_speakers": comparison.num_speakers,
    }


def _compare(sweep: Sweep, *, stored: bool, floor: bool) -> tuple[Comparison, int]:
    """The comparison, and the number of folds in it."""
    from benchmarks.subjects.quality_cells import finished, floor_cells, stored_cells
    from gmp_atl_dist.console import Reporter
    from gmp_atl_dist.execution import open_context
    from gmp_atl_dist.statistics.arms import arms_of
    from gmp_atl_dist.statistics.comparing import compare_arms
    from gmp_atl_dist.sweeps.record import read_sweep
    from gmp_atl_dist.sweeps.running import run_sweep

    with open_context(sweep.config, Reporter(terminal=False)) as context:
        record = read_sweep(context.store, sweep.name) if stored else run_sweep(sweep, context)
        if record is None or record.fingerprint != sweep.fingerprint:
            raise MeasurementError(
                f"sweep {sweep.name} was not run below {context.store.uri} as it is configured now; leave "
                f"--stored out to run it"
            )
        rectangle = finished(record)
        if not rectangle.cells:
            raise MeasurementError(
                f"no fold and seed of sweep {sweep.name} has all arms done; leave --stored out to go on"
            )
        print(
            f"compared: {', '.join(rectangle.folds)}; seeds {', '.join(map(str, rectangle.seeds))}"
        )
        cells, classes = stored_cells(rectangle, context.store.uri)
        if floor:
            cells += floor_cells(sweep.config, context, rectangle, cells)
    truth, arms = arms_of(cells, classes)
    return compare_arms(truth, arms, sweep.arms[0]), len(rectangle.folds)


def _over_seeds(arm: ComparedArm) -> Spread:
    """The mean, not the median, because the intervals are of means."""
    found = arm.scores["uar"].over_seeds
    return Spread(found.mean, found.lowest, found.highest)


def _markdown(comparison: Comparison) -> Iterator[str]:
    corpora = [part.name for part in comparison.arms[0].parts.get("corpus", ())]
    yield "| " + " | ".join(["arm", "UAR", *corpora, "difference", "p, corrected"]) + " |"
    yield "|---" * (4 + len(corpora)) + "|"
    for arm in comparison.arms:
        found = arm.scores["uar"]
        low, high = found.interval
        cells = [
            arm.name,
            f"{_percent(found.over_seeds.mean)} ({_percent(low)} to {_percent(high)})",
        ]
        parts = {part.name: part for part in arm.parts.get("corpus", ())}
        cells += [_percent(parts[name].uar_zero.mean) for name in corpora]
        cells += _difference(arm)
        yield f"| {' | '.join(cells)} |"


def _difference(arm: ComparedArm) -> list[str]:
    if arm.difference is None:
        return ["baseline", ""]
    uar = arm.difference.scores["uar"]
    low, high = uar.interval
    text = f"{100 * uar.value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
    return [text, f"{arm.difference.p_holm:.3f}"]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


@contextmanager
def _sweep(path: str | None, overrides: list[str]) -> Iterator[Sweep]:
    from gmp_atl_dist.config.sweep import load_sweep
    from gmp_atl_dist.corpora.synth import write_synthetic_corpus

    if path is not None:
        yield load_sweep(path, overrides)
        return
    with tempfile.TemporaryDirectory(prefix="gmp-atl-bench-") as folder:
        corpus, file = Path(folder) / "corpus", Path(folder) / "small.toml"
        write_synthetic_corpus(corpus, utterances_per_speaker_and_emotion=1)
        file.write_text(_SMALL)
        places = [f"runtime.corpus={corpus}", f"runtime.root={folder}/root"]
        yield load_sweep(file, [*places, *overrides])


_SMALL = """
base = "demo"
folds = [1]

[set]
"warmup.epochs" = 1
"retrain.steps" = 5
"finetune.epochs" = 1
"runtime.train.workers" = 1

[[arms]]
name = "matched_finetune"
set = { "finetune.start" = "backbone" }

[[arms]]
name = "gmp_atl"
"""

BENCHMARK = Benchmark(
    name="quality",
    about=__doc__,
    keys=KEYS,
    quick={"floor": False},
    add_options=_add_options,
    measure=_measure,
)

if __name__ == "__main__":
    raise SystemExit(BENCHMARK.run())
