"""Progress of a mapped stage, added up from the results of its tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from gmp_atl_dist.runtime import Task, TaskResult, count_result
from gmp_atl_dist.store.progress import ProgressSnapshot

Clock = Callable[[], float]


class Pace:
    """Expected end of work that continues at its mean rate since it stood at ``done``."""

    def __init__(self, done: float, clock: Clock = time.monotonic) -> None:
        self._done = done
        self._clock = clock
        self._started_s = clock()

    @property
    def elapsed_s(self) -> float:
        return self._clock() - self._started_s

    def ends_in_s(self, done: float, total: float) -> float | None:
        """Seconds to the end; None before the first step, and at the end."""
        if done <= self._done or done >= total:
            return None
        return self.elapsed_s * (total - done) / (done - self._done)


class PartsProgress:
    """Adds up what the workers of a mapped stage report.

    Rates are those of this run: parts that were done before, or that another run has stored meanwhile,
    count as done, and not for the rate. The total amount of audio is estimated from the tasks' costs. The
    estimate is exact where the cost of a task is proportional to its audio.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        missing: Sequence[Task],
        audio_s: float,
        clock: Clock = time.monotonic,
    ) -> None:
        """``audio_s`` is that of the tasks done before, which are all but ``missing``."""
        self._costs = {task.name: task.cost for task in missing}
        self._total_cost = sum(task.cost for task in tasks)
        self._cost = sum(task.cost for task in tasks if task.name not in self._costs)
        self._done, self._total = len(tasks) - len(missing), len(tasks)
        self._audio_before_s, self._audio_s, self._utterances = audio_s, 0.0, 0
        self._workers: dict[str, TaskResult] = {}
        self._pace = Pace(self._cost, clock)

    def add(self, result: TaskResult) -> None:
        """One more task is done."""
        counts = count_result(result.result)
        self._done += 1
        self._cost += self._costs.pop(result.name)
        if not self._costs:
            self._cost = self._total_cost  # exact, without rounding
        if result.found:
            self._audio_before_s += counts.audio_s
            return
        self._audio_s += counts.audio_s
        self._utterances += counts.utterances
        before = self._workers.get(result.worker)
        # A worker's results may overtake each other.
        if before is None or before.alive_s < result.alive_s:
            self._workers[result.worker] = result

    def snapshot(self) -> ProgressSnapshot:
        elapsed_s, audio_s = self._pace.elapsed_s, self._audio_before_s + self._audio_s
        alive_s = sum(r.alive_s for r in self._workers.values())
        busy_s = sum(r.busy_s for r in self._workers.values())
        has_rate = self._audio_s > 0 and elapsed_s > 0
        return ProgressSnapshot(
            done=self._done,
            total=self._total,
            unit="parts",
            audio_s=audio_s,
            total_audio_s=audio_s * self._total_cost / self._cost if self._cost > 0 else None,
            utterances_per_s=self._utterances / elapsed_s if has_rate else None,
            audio_h_per_h=self._audio_s / elapsed_s if has_rate else None,
            busy_share=busy_s / alive_s if alive_s > 0 else None,
            ends_in_s=self._pace.ends_in_s(self._cost, self._total_cost),
        )
