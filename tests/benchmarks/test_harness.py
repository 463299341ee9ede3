"""Rounds, rates and clocks refuse to divide by nothing; subjects run in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from benchmarks.harness.child import Child, run_alone
from benchmarks.harness.rounds import MeasurementError, Spread, interleaved, rate, ratios
from benchmarks.harness.steady import SteadyClock


def test_a_spread_shows_median_smallest_and_largest() -> None:
    assert f"{Spread.of([3.0, 1.0, 2.0]):.1f}" == "2.0 (1.0 to 3.0)"
    assert f"{Spread.of([2.0]):.1f}" == "2.0"


def test_nothing_measured_is_an_error_that_says_so() -> None:
    with pytest.raises(MeasurementError, match="number of rounds"):
        Spread.of([])


def test_every_subject_is_measured_once_per_round() -> None:
    order: list[str] = []
    calls = {name: partial(order.append, name) for name in "ab"}

    measured = interleaved(calls, 3)

    assert order == ["a", "b"] * 3
    assert [len(of_subject) for of_subject in measured.values()] == [3, 3]


def test_ratios_are_taken_round_by_round() -> None:
    # The second round was slow for both.
    assert ratios([2.0, 20.0], [1.0, 10.0]) == Spread(2.0, 2.0, 2.0)


@pytest.mark.parametrize("per", [0.0, -0.1])
def test_a_rate_over_no_time_is_an_error_that_names_it(per: float) -> None:
    with pytest.raises(MeasurementError, match="times real time"):
        rate(1.0, per, "times real time")


@pytest.mark.parametrize("items", [0, 1, 2])
def test_a_run_that_is_all_warm_up_is_refused_before_it_starts(items: int) -> None:
    with pytest.raises(MeasurementError, match="measure 3 or more"):
        SteadyClock(items, 2, "parts")


def test_the_items_after_the_warm_up_count() -> None:
    clock = SteadyClock(5, 2, "parts")
    counted: list[int] = []
    for item in range(5):
        if clock.is_warm:
            counted.append(item)
        clock.tick()

    steady = clock.steady()

    assert counted == [2, 3, 4]
    assert steady.items == 3
    assert steady.wall_s > 0


def test_a_run_that_ended_early_has_no_figures() -> None:
    clock = SteadyClock(3, 1, "parts")
    clock.tick()

    with pytest.raises(MeasurementError, match="1 of 3"):
        clock.steady()


def test_a_call_in_a_process_of_its_own_gives_its_result() -> None:
    assert run_alone(os.getpid) != os.getpid()
    assert run_alone(partial(os.getenv, "OMP_NUM_THREADS"), threads=3) == "3"


def test_too_little_to_measure_reaches_the_caller_as_it_was() -> None:
    with pytest.raises(MeasurementError, match="number of rounds"):
        run_alone(partial(Spread.of, ()))


def test_a_call_that_fails_shows_its_output() -> None:
    with pytest.raises(RuntimeError, match="ValueError: invalid literal"):
        run_alone(partial(int, "no number"))


def test_a_child_can_be_ended_before_its_result() -> None:
    child = Child(partial(input))
    child.close()
    child.close()


_SLEEPING = """
import sys
from functools import partial
from pathlib import Path
from benchmarks.harness.child import run_alone
from benchmarks.harness.command import Benchmark
from tests.support.gpu_parts import sleeps

def measure(_):
    return run_alone(partial(sleeps, Path(sys.argv[1])))

Benchmark("sleeping", "", {}, {}, lambda _: None, measure).run([])
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_benchmark_that_is_stopped_ends_all_that_it_started(
    signum: signal.Signals, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    repository = Path(__file__).parents[2]
    stopped = subprocess.Popen(
        [sys.executable, "-c", _SLEEPING, str(pids)], cwd=repository, stderr=subprocess.DEVNULL
    )
    until_s = time.monotonic() + 120
    while not pids.exists() and time.monotonic() < until_s:
        time.sleep(0.05)
    started = [psutil.Process(int(pid)) for pid in pids.read_text().split()]
    stopped.send_signal(signum)
    assert stopped.wait(60) != 0
    gone, alive = psutil.wait_procs(started, timeout=10)
    assert [p.pid for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []
    assert len(gone) + len(alive) == 2
