"""Whether a run is under way, is done, or was stopped or killed.

A driver that is killed cannot write that down. Its record says ``running`` for ever, so the record alone
is not the truth: the driver must also have been seen lately, or its process must live.
"""

from __future__ import annotations

import socket
import time
from typing import Literal, TypeAlias

import psutil

from gmp_atl_dist.store.runs import Attempt, RunRecord, StageRun

SEEN_EVERY_S = 15.0
"""How often a driver writes that it is alive."""
LOST_AFTER_S = 90.0
"""A driver that was not seen for so long counts as killed."""
CLOCKS_DIFFER_S = 900.0
"""What the clocks of two machines may differ by: object stores refuse requests that are 15 minutes off."""
_CLOCK_S = 5.0
"""What the start of a process and of its attempt may differ by."""

State: TypeAlias = Literal["running", "done", "stopped", "failed", "killed"]
RunState: TypeAlias = Literal["running", "done", "incomplete", "stopped", "failed", "killed"]


def attempt_state(attempt: Attempt, now_s: float | None = None) -> State:
    """The state of an attempt at Unix time ``now_s``; ``killed`` if it did not end and does not live.

    On the driver's own machine its process is looked up. Elsewhere the time at which it was last seen
    decides.
    """
    if attempt.state != "running":
        return attempt.state
    if attempt.pid and attempt.machine.host == socket.gethostname():
        return "running" if process_lives(attempt.pid, attempt.started_s) else "killed"
    now_s = time.time() if now_s is None else now_s
    return "running" if now_s - attempt.seen_s < LOST_AFTER_S else "killed"


def run_state(record: RunRecord, now_s: float | None = None) -> RunState:
    """The state of a run: that of its last attempt.

    ``incomplete``: the last attempt is done, and there is no report, as after ``gmp-atl stage``.
    """
    if not record.attempts:
        return "incomplete"
    state = attempt_state(record.attempts[-1], now_s)
    return "incomplete" if state == "done" and not record.report else state


def stage_state(record: RunRecord, stage: StageRun, now_s: float | None = None) -> State:
    """The state of a stage that the run has reached. A stage that was found is done."""
    if stage.state in ("done", "found"):
        return "done"
    if stage.state != "running":
        return stage.state
    if not 0 <= stage.attempt < len(record.attempts):
        return "killed"
    attempt = record.attempts[stage.attempt]
    state = attempt_state(attempt, now_s)
    # An attempt that is over and did not say so of the stage was killed in it.
    return "killed" if state == "done" else state


def duration_s(record: RunRecord, now_s: float | None = None) -> float:
    """Seconds that all attempts together took; of a killed one until it was last seen."""
    now_s = time.time() if now_s is None else now_s
    total_s = 0.0
    for attempt in record.attempts:
        ended_s = attempt.ended_s
        if ended_s is None:
            ended_s = now_s if attempt_state(attempt, now_s) == "running" else attempt.seen_s
        total_s += max(0.0, ended_s - attempt.started_s)
    return total_s


def process_lives(pid: int, started_s: float) -> bool:
    """Whether the process of this machine that began something at ``started_s`` lives.

    The number may be another process's by now.
    """
    try:
        process = psutil.Process(pid)
        is_older = process.create_time() <= started_s + _CLOCK_S
        return is_older and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
