"""One run of the whole pipeline that is disturbed at random, on nodes of this machine and a real S3 server.

The seed decides which fault comes when. What a fault meets depends on how far the run is by then, so a seed
repeats the scenario and not every instruction.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field

from benchmarks.subjects.fault_kinds import FAULTS
from benchmarks.subjects.fault_results import Result, compare, results_of
from benchmarks.subjects.fault_stage import Stage, new_stage

_MOST_ATTEMPTS = 30
_POLL_S = 0.1
_AFTER_DAMAGE = (0, 4, 5)
"""Exit codes after which an operator looks for damage. With 0 it may be in what no later stage has read."""
DEFECTS = (1, 2, 3, 6)
"""Exit codes that no fault explains: a traceback, or a complaint about the configuration or the corpus."""


@dataclass
class Outcome:
    """What became of a run.

    Attributes:
        seed: of its faults.
        faults: that were made, in order, each with the second after the start.
        attempts: how often the command was given.
        exit_codes: of the attempts, in order.
        wall_s: from the first attempt to the last exit.
        finished: the last attempt ended with 0 within the time.
        different: artefacts that are not those of the undisturbed run, in words.
        repairs: how often ``gmp-atl repair --yes`` set damage aside, before the command was given again.
        put_again: parts that were stored more than once.
        log: the end of the output of each attempt that ended as no fault explains, and of one that did not
            finish.
    """

    seed: int
    faults: list[str] = field(default_factory=list)
    attempts: int = 0
    exit_codes: list[int] = field(default_factory=list)
    wall_s: float = 0.0
    finished: bool = False
    different: list[str] = field(default_factory=list)
    repairs: int = 0
    put_again: int = 0
    log: str = ""


def undisturbed(corpus: str) -> tuple[Result, float]:
    """The results of the run without a fault, on the same nodes and server, and its seconds."""
    with new_stage(corpus) as stage:
        started_s = time.monotonic()
        driver = stage.start_driver()
        code = driver.wait()
        if code:
            raise RuntimeError(f"the undisturbed run ended with {code}:\n{stage.log_end()}")
        return results_of(stage.root), time.monotonic() - started_s


def disturbed(
    corpus: str, seed: int, expected: Result, every_s: float, most_faults: int, limit_s: float
) -> Outcome:
    """Run until the command ends with 0; it is given again after every other end.

    Where objects were damaged, ``gmp-atl verify`` is asked as well, and ``gmp-atl repair --yes`` sets aside
    what it finds, as the documentation tells an operator to do.

    Args:
        corpus: folder of the synthetic corpus.
        seed: of the faults.
        expected: what the undisturbed run made.
        every_s: mean seconds between faults.
        most_faults: after these the run is left alone.
        limit_s: after this time the run counts as hanging.
    """
    rng, outcome = random.Random(seed), Outcome(seed)
    with new_stage(corpus) as stage:
        started_s = time.monotonic()
        next_fault_s = started_s + rng.uniform(0.5, 1.5) * every_s
        while time.monotonic() - started_s < limit_s:
            if not stage.drivers:
                last = outcome.exit_codes[-1] if outcome.exit_codes else None
                wrong = last in _AFTER_DAMAGE and _set_damage_aside(stage, outcome)
                if last == 0 and not wrong:
                    outcome.finished = True
                    break
                if outcome.attempts == _MOST_ATTEMPTS:
                    break
                outcome.attempts += 1
                stage.start_driver()
            time.sleep(_POLL_S)
            for driver in [d for d in stage.drivers if d.poll() is not None]:
                stage.drivers.remove(driver)
                outcome.exit_codes.append(driver.returncode)
                if driver.returncode in DEFECTS:
                    outcome.log += (
                        f"{driver.log.name} ended with {driver.returncode}:\n{driver.log_end()}\n"
                    )
            if len(outcome.faults) < most_faults and time.monotonic() >= next_fault_s:
                name = rng.choice(sorted(FAULTS))
                if FAULTS[name](stage, rng):
                    outcome.faults.append(f"{time.monotonic() - started_s:.0f} s {name}")
                next_fault_s = time.monotonic() + rng.uniform(0.5, 1.5) * every_s
        outcome.wall_s = time.monotonic() - started_s
        outcome.put_again = _put_again(stage.proxy.puts)
        if not outcome.finished:
            outcome.log += stage.log_end()
        stage.proxy.heal()
        if outcome.finished:
            outcome.different = compare(expected, results_of(stage.root))
    return outcome


def _set_damage_aside(stage: Stage, outcome: Outcome) -> bool:
    """Whether anything was found; what was is set aside, unless the store does not answer."""
    if not stage.damaged:
        return False
    if stage.gmp_atl("verify") == 0:
        stage.damaged.clear()
        return False
    outcome.repairs += stage.gmp_atl("repair", "--yes") == 0
    return True


def _put_again(puts: Counter[str]) -> int:
    parts = [n for path, n in puts.items() if "/artifacts/" in path and "/parts/" in path]
    return sum(n - 1 for n in parts)
