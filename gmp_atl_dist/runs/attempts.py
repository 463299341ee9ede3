"""What the record of a run says of an attempt: its stages, what they took, and how it ended."""

from __future__ import annotations

import time

from gmp_atl_dist import stopping
from gmp_atl_dist.errors import GmpAtlError, StoppedError
from gmp_atl_dist.redaction import without_secrets
from gmp_atl_dist.stages.base import Stage
from gmp_atl_dist.store.runs import Attempt, AttemptState, RunRecord, StageRun, StageState

_LONGEST_MESSAGE = 2000


def with_attempt(record: RunRecord, attempt: Attempt, mine: dict[str, StageRun]) -> RunRecord:
    """``record`` with this attempt and the stages that it reached."""
    attempts = list(record.attempts)
    same = [
        number
        for number, known in enumerate(attempts)
        if (known.started_s, known.pid) == (attempt.started_s, attempt.pid)
    ]
    number = same[0] if same else len(attempts)
    attempts[number : number + 1] = [attempt]
    stages = {stage.label: stage for stage in record.stages}
    for label, stage in list(mine.items()):
        stages[label] = stage.model_copy(update={"attempt": number})
    update = {"attempts": tuple(attempts), "stages": tuple(stages.values())}
    return record.model_copy(update=update)


def stage_run(stage: Stage, state: StageState, duration_s: float | None = None) -> StageRun:
    """A stage as an attempt has just begun or found it."""
    return StageRun(
        label=stage.label,
        name=stage.name,
        fold=stage.fold_name,
        kind=stage.kind,
        fingerprint=stage.key.fingerprint,
        state=state,
        attempt=0,
        started_s=time.time(),
        duration_s=duration_s,
    )


def spent_s(record: RunRecord, stage: StageRun) -> float:
    """Seconds that the attempts at a stage took so far; of a killed one until it was last seen."""
    took_s = stage.duration_s
    if took_s is None and 0 <= stage.attempt < len(record.attempts):
        took_s = max(0.0, record.attempts[stage.attempt].seen_s - stage.started_s)
    return stage.earlier_s + (took_s or 0.0)


def end_of(error: BaseException | None) -> tuple[AttemptState, str]:
    """The state and the message of an attempt that ended with ``error``."""
    if error is None:
        return "done", ""
    signum = stopping.requested()
    if isinstance(error, GmpAtlError):
        text = error.message
    elif signum is not None:
        text = f"stopped by {stopping.called(signum)}"
    else:
        text = f"{type(error).__name__}: {error}"
    message = without_secrets(text)[:_LONGEST_MESSAGE]
    # Everything that is no Exception is a request to stop: KeyboardInterrupt, SystemExit.
    is_stop = (
        isinstance(error, StoppedError) or not isinstance(error, Exception) or signum is not None
    )
    return ("stopped" if is_stop else "failed"), message
