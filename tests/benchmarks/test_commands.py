"""Every benchmark has the same command line and the same keys in its last line, quick or not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness.command import Benchmark, all_benchmarks
from benchmarks.harness.machine import Machine
from benchmarks.harness.rounds import Spread

REPOSITORY = Path(__file__).resolve().parents[2]
BENCHMARKS = all_benchmarks()
MACHINE = Machine("a processor", 2, "cpu", 100.0, {"python": "3"})
every_benchmark = pytest.mark.parametrize("benchmark_", BENCHMARKS.values(), ids=BENCHMARKS)


def test_every_command_of_the_folder_is_listed() -> None:
    commands = {path.stem for path in (REPOSITORY / "benchmarks").glob("[a-z]*.py")}

    assert set(BENCHMARKS) == commands
    assert {name: benchmark.name for name, benchmark in BENCHMARKS.items()} == {
        name: name for name in commands
    }


@every_benchmark
def test_help_shows_quick_and_every_key(benchmark_: Benchmark) -> None:
    text = benchmark_.parser().format_help()

    assert "--quick" in text
    assert benchmark_.summary in text
    assert [key for key in benchmark_.keys if key not in text] == []


@every_benchmark
def test_quick_needs_no_other_option(benchmark_: Benchmark) -> None:
    full, quick = vars(benchmark_.parse([])), vars(benchmark_.parse(["--quick"]))

    assert quick == full | dict(benchmark_.quick) | {"quick": True}
    # What quick sets must be options: a misspelt one would change nothing.
    assert set(benchmark_.quick) <= set(full)


@every_benchmark
def test_an_option_that_is_given_wins_over_quick(benchmark_: Benchmark) -> None:
    if "rounds" in benchmark_.quick:
        assert benchmark_.parse(["--quick", "--rounds", "5"]).rounds == 5


@every_benchmark
def test_last_line_has_the_same_keys_whatever_was_measured(benchmark_: Benchmark) -> None:
    everything = dict.fromkeys(benchmark_.keys, Spread(2.0, 1.0, 3.0))
    full = benchmark_.last_line(benchmark_.parse([]), MACHINE, 1.0, everything)
    quick = benchmark_.last_line(benchmark_.parse(["--quick"]), MACHINE, 1.0, {})

    assert full.keys() == quick.keys()
    assert {"machine", "spread", *benchmark_.keys} <= full.keys()
    assert json.loads(json.dumps(quick, allow_nan=False))["machine"]["matmul_gflops"] == 100.0
    assert all(full[key] == 2.0 for key in benchmark_.keys)
    assert full["spread"] == {key: [1.0, 3.0] for key in benchmark_.keys}


@every_benchmark
def test_a_figure_that_is_not_listed_is_refused(benchmark_: Benchmark) -> None:
    with pytest.raises(ValueError, match="unheard_of"):
        benchmark_.last_line(benchmark_.parse([]), MACHINE, 1.0, {"unheard_of": 1.0})


def test_a_number_that_json_cannot_hold_is_null() -> None:
    benchmark_ = BENCHMARKS["rerun"]
    line = benchmark_.last_line(benchmark_.parse([]), MACHINE, 1.0, {"status_s": float("nan")})

    assert line["status_s"] is None


@pytest.mark.nightly
def test_the_cheapest_benchmark_runs_quick() -> None:
    command = [sys.executable, "-m", "benchmarks.simulate", "--quick"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr[-2000:]
    assert "GFLOP/s" in done.stdout.splitlines()[0]
    line = json.loads(done.stdout.splitlines()[-1])
    assert line["quick"] is True
    assert line["machine"]["matmul_gflops"] > 0
    assert all(line[key] is not None for key in BENCHMARKS["simulate"].keys)
