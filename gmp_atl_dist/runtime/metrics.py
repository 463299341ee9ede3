"""Metrics that Ray exports for Prometheus: work of processes, progress of stages, state of trainings.

Ray puts ``ray_`` before each name. Counters stay as long as their node. Ray drops a gauge some 20 s after it
was set last. Here each gauge is set again every few seconds as long as its process lives, because otherwise a
process that hangs would disappear from the metrics.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from gmp_atl_dist.tags import Tags

if TYPE_CHECKING:
    from ray.util.metrics import Counter, Gauge

_KEYS = ("run", "stage", "fold")
_REPEAT_S = 5.0


@dataclass(frozen=True)
class TaskCounts:
    """What one task processed: utterances and their audio. Both are 0 for tasks without audio.

    ``bad`` counts recordings that were left out.
    """

    utterances: int = 0
    audio_s: float = 0.0
    bad: int = 0


def count_result(result: str) -> TaskCounts:
    """The counts of a worker's result, a JSON list of receipts; all 0 for any other result.

    A task may write one part per layer, with the same rows in each. The audio is divided among the
    parts, so it is added up; the rows are not.
    """
    try:
        receipts = json.loads(result)
        audio_s = sum(float(receipt["audio_s"]) for receipt in receipts)
        rows = max((int(receipt["rows"]) for receipt in receipts), default=0)
        bad = sum(len(receipt.get("problems", ())) for receipt in receipts)
    except (ValueError, TypeError, KeyError, AttributeError):
        return TaskCounts()
    return TaskCounts(rows, audio_s, bad) if audio_s else TaskCounts(bad=bad)


class Clock:
    """How long this process has computed, and since when.

    Tasks may overlap, because a GPU works on one while the next one is started: their time counts once.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._first_s: float | None = None
        self._started_s: float | None = None
        self._running = 0
        self._busy_s = 0.0

    def __enter__(self) -> None:
        with self._lock:
            if not self._running:
                self._started_s = self._now()
                self._first_s = self._started_s if self._first_s is None else self._first_s
            self._running += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._running -= 1
            if not self._running and self._started_s is not None:
                self._busy_s += self._now() - self._started_s
                self._started_s = None

    @property
    def busy_s(self) -> float:
        with self._lock:
            started_s = self._started_s
            return self._busy_s + (0.0 if started_s is None else self._now() - started_s)

    @property
    def alive_s(self) -> float:
        """Time since the start of its first task. Time before that is Ray's start, not idleness."""
        return 0.0 if self._first_s is None else self._now() - self._first_s


class WorkerMetrics:
    """The metrics of one worker process."""

    def __init__(self, tags: Tags) -> None:
        self._gauges = _Gauges(tags)
        self._gauges.add("gmp_atl_busy_share", "share of its time in which a worker computes")

    def show(self, busy_s: float, alive_s: float) -> None:
        if alive_s:
            self._gauges.set("gmp_atl_busy_share", busy_s / alive_s)


class StageMetrics:
    """The metrics of a stage of tasks, kept by the driver: tasks planned and tasks finished.

    Both only grow, also when the same tasks are sent again. Fewer are finished than planned as long as
    something is waited for. The driver counts the workers' results, each task once, because counts of a
    worker's last second are lost when it ends.
    """

    def __init__(self, tags: Tags) -> None:
        self._finished, self._planned = 0, 0
        self._gauges = _Gauges(tags)
        self._gauges.add("gmp_atl_parts_done", "tasks whose results the driver has received")
        self._gauges.add("gmp_atl_parts_planned", "tasks that the driver has planned")
        self._parts = _counter("gmp_atl_parts_total", "finished tasks", tags)
        self._utterances = _counter("gmp_atl_utterances_total", "processed utterances", tags)
        self._audio_s = _counter(
            "gmp_atl_audio_seconds_total", "audio of the processed utterances", tags
        )
        self._bad = _counter("gmp_atl_bad_recordings_total", "recordings that were left out", tags)

    def plan(self, tasks: int) -> None:
        self._planned += tasks
        self._gauges.set("gmp_atl_parts_planned", self._planned)
        self._gauges.set("gmp_atl_parts_done", self._finished)

    def finish(self, result: str = "") -> None:
        """Count a finished task by the result of its worker; see :func:`count_result`."""
        self._finished += 1
        self._gauges.set("gmp_atl_parts_done", self._finished)
        self._parts.inc(1)
        counts = count_result(result)
        # Ray refuses to add zero to a counter.
        if counts.audio_s:
            self._utterances.inc(counts.utterances)
            self._audio_s.inc(counts.audio_s)
        if counts.bad:
            self._bad.inc(counts.bad)

    def close(self) -> None:
        """End the gauges: the stage has ended, successfully or not."""
        self._gauges.close()


_TRAINING = {
    "updates_done": ("gmp_atl_updates_done", "finished updates, including those before a restart"),
    "updates_planned": ("gmp_atl_updates_planned", "updates of the whole training"),
    "updates_skipped": ("gmp_atl_updates_skipped", "updates whose loss or gradient was not finite"),
    "loss": ("gmp_atl_loss", "mean loss of the last point of the curve"),
    "gradient_norm": ("gmp_atl_gradient_norm", "mean norm of the gradient before clipping"),
    "learning_rate": ("gmp_atl_learning_rate", "mean learning rate"),
    "audio_h_per_h": ("gmp_atl_audio_hours_per_hour", "hours of training audio per hour"),
    "data_wait_share": ("gmp_atl_data_wait_share", "share of the time spent waiting for data"),
    "checkpoint_stall_share": (
        "gmp_atl_checkpoint_stall_share",
        "share of the time spent waiting for checkpoints",
    ),
    "checkpoint_time_s": (
        "gmp_atl_checkpoint_timestamp_seconds",
        "Unix time of the newest checkpoint of this attempt, or of its start",
    ),
}
"""By the name of a metric in the training loop: the name of its gauge, and its description."""


class TrainingMetrics:
    """The metrics of a training, kept by its first rank."""

    def __init__(self, tags: Tags) -> None:
        self._gauges = _Gauges(tags)
        for name, description in _TRAINING.values():
            self._gauges.add(name, description)
        self._gauges.add("gmp_atl_metric", "another metric of a stage", "metric")

    def show(self, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            if name in _TRAINING:
                self._gauges.set(_TRAINING[name][0], value)
            else:
                self._gauges.set("gmp_atl_metric", value, metric=name)


class _Gauges:
    """Gauges that a thread sets again until they are closed or their process ends."""

    def __init__(self, tags: Tags) -> None:
        self._tags = tags
        self._gauges: dict[str, Gauge] = {}
        self._values: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name="gauges", daemon=True)

    def add(self, name: str, description: str, *more_keys: str) -> None:
        from ray.util.metrics import Gauge

        gauge = Gauge(name, description, tag_keys=(*_KEYS, *more_keys))
        self._gauges[name] = gauge.set_default_tags(_defaults(self._tags))

    def set(self, name: str, value: float, *, metric: str = "") -> None:
        with self._lock:
            self._values[name, metric] = value
            self._set(name, metric, value)
            if self._thread.ident is None:
                self._thread.start()

    def close(self) -> None:
        self._closed.set()

    def _repeat(self) -> None:
        while not self._closed.wait(_REPEAT_S):
            with self._lock:
                for (name, metric), value in self._values.items():
                    self._set(name, metric, value)

    def _set(self, name: str, metric: str, value: float) -> None:
        self._gauges[name].set(value, {"metric": metric} if metric else {})


def _counter(name: str, description: str, tags: Tags) -> Counter:
    from ray.util.metrics import Counter

    return Counter(name, description, tag_keys=_KEYS).set_default_tags(_defaults(tags))


def _defaults(tags: Tags) -> dict[str, str]:
    return {key: value or "none" for key, value in asdict(tags).items()}
