"""What Ray exports for Prometheus: what processes have done, how far a stage is, how a training goes.

Ray puts ``ray_`` before each name. Counters stay as long as their node. Ray exports a gauge once for each
time that it is set, and forgets it after some 20 s; so here it is set again and again as long as its process
lives. Else what has hung would be what is not seen.
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
_AGAIN_EVERY_S = 5.0


@dataclass(frozen=True)
class TaskCounts:
    """What one task did: utterances and their audio; both 0 where it had none to do with audio.

    ``bad`` recordings were left out.
    """

    utterances: int = 0
    audio_s: float = 0.0
    bad: int = 0


def count_result(result: str) -> TaskCounts:
    """Of a worker's result, a JSON list of receipts. What is no such list count_result to nothing.

    A task may write a part for each of several layers, with the same rows in each of them; their
    shares of the audio add up.
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
    """How long this process has computed, and since when. Computes one thing at a time."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._first_s: float | None = None
        self._began_s: float | None = None
        self._busy_s = 0.0

    def __enter__(self) -> None:
        self._began_s = self._now()
        self._first_s = self._began_s if self._first_s is None else self._first_s

    def __exit__(self, *_: object) -> None:
        if self._began_s is not None:
            self._busy_s += self._now() - self._began_s
        self._began_s = None

    @property
    def busy_s(self) -> float:
        began_s = self._began_s
        return self._busy_s + (0.0 if began_s is None else self._now() - began_s)

    @property
    def alive_s(self) -> float:
        """Since it began its first task: what came before is Ray's start, not a lack of work."""
        return 0.0 if self._first_s is None else self._now() - self._first_s


class WorkerMetrics:
    """Of a process of a mapped stage."""

    def __init__(self, tags: Tags) -> None:
        self._gauges = _Gauges(tags)
        self._gauges.add("gmp_atl_busy_share", "share of its time that a worker computes")

    def show(self, busy_s: float, alive_s: float) -> None:
        if alive_s:
            self._gauges.set("gmp_atl_busy_share", busy_s / alive_s)


class StageMetrics:
    """Of the driver of a mapped stage: how much there is to do in this attempt, and what is done.

    Both only grow, also where the same tasks are asked again and again; done is below planned as long
    as somebody is waiting. The driver counts what workers did, each task once: what a worker counts in
    its last second ends with it.
    """

    def __init__(self, tags: Tags) -> None:
        self._done, self._planned = 0, 0
        self._gauges = _Gauges(tags)
        self._gauges.add("gmp_atl_parts_done", "tasks that the driver has seen done")
        self._gauges.add("gmp_atl_parts_planned", "tasks that it has given out")
        self._parts = _counter("gmp_atl_parts_total", "tasks done", tags)
        self._utterances = _counter("gmp_atl_utterances_total", "utterances done", tags)
        self._audio_s = _counter(
            "gmp_atl_audio_seconds_total", "audio of the utterances done", tags
        )
        self._bad = _counter("gmp_atl_bad_recordings_total", "recordings that were left out", tags)

    def plan(self, tasks: int) -> None:
        self._planned += tasks
        self._gauges.set("gmp_atl_parts_planned", self._planned)
        self._gauges.set("gmp_atl_parts_done", self._done)

    def done(self, result: str = "") -> None:
        """A task is; ``result`` is its worker's, see :func:`count_result`."""
        self._done += 1
        self._gauges.set("gmp_atl_parts_done", self._done)
        self._parts.inc(1)
        did = count_result(result)
        # Ray refuses to count zero.
        if did.audio_s:
            self._utterances.inc(did.utterances)
            self._audio_s.inc(did.audio_s)
        if did.bad:
            self._bad.inc(did.bad)

    def close(self) -> None:
        """The stage is over, however it ended."""
        self._gauges.close()


_TRAINING = {
    "updates_done": ("gmp_atl_updates_done", "updates taken, those before a restart included"),
    "updates_planned": ("gmp_atl_updates_planned", "updates of the whole training"),
    "updates_skipped": ("gmp_atl_updates_skipped", "updates whose loss or gradient was not finite"),
    "loss": ("gmp_atl_loss", "mean loss at the curve's last point"),
    "gradient_norm": ("gmp_atl_gradient_norm", "mean norm of the gradient before clipping"),
    "learning_rate": ("gmp_atl_learning_rate", "mean learning rate"),
    "audio_h_per_h": ("gmp_atl_audio_hours_per_hour", "audio learnt from in an hour"),
    "data_wait_share": ("gmp_atl_data_wait_share", "share of the time that waits for data"),
    "checkpoint_stall_share": (
        "gmp_atl_checkpoint_stall_share",
        "share of the time that waits for checkpoints",
    ),
    "checkpoint_time_s": (
        "gmp_atl_checkpoint_timestamp_seconds",
        "Unix time of this attempt's newest checkpoint, or of its start",
    ),
}
"""Metrics of a training by their names in the loop: the gauge of each, and its description."""


class TrainingMetrics:
    """Of the first rank of a training."""

    def __init__(self, tags: Tags) -> None:
        self._gauges = _Gauges(tags)
        for name, words in _TRAINING.values():
            self._gauges.add(name, words)
        self._gauges.add("gmp_atl_metric", "another metric of a stage", "metric")

    def show(self, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            if name in _TRAINING:
                self._gauges.set(_TRAINING[name][0], value)
            else:
                self._gauges.set("gmp_atl_metric", value, metric=name)


class _Gauges:
    """Gauges that are told again and again until they are closed, or their process ends."""

    def __init__(self, tags: Tags) -> None:
        self._tags = tags
        self._gauges: dict[str, Gauge] = {}
        self._values: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="gauges", daemon=True)

    def add(self, name: str, words: str, *more: str) -> None:
        from ray.util.metrics import Gauge

        gauge = Gauge(name, words, tag_keys=(*_KEYS, *more))
        self._gauges[name] = gauge.set_default_tags(_defaults(self._tags))

    def set(self, name: str, value: float, *, metric: str = "") -> None:
        with self._lock:
            self._values[name, metric] = value
            self._set(name, metric, value)
            if self._thread.ident is None:
                self._thread.start()

    def close(self) -> None:
        self._over.set()

    def _tell(self) -> None:
        while not self._over.wait(_AGAIN_EVERY_S):
            with self._lock:
                for (name, metric), value in self._values.items():
                    self._set(name, metric, value)

    def _set(self, name: str, metric: str, value: float) -> None:
        self._gauges[name].set(value, {"metric": metric} if metric else {})


def _counter(name: str, words: str, tags: Tags) -> Counter:
    from ray.util.metrics import Counter

    return Counter(name, words, tag_keys=_KEYS).set_default_tags(_defaults(tags))


def _defaults(tags: Tags) -> dict[str, str]:
    return {key: value or "none" for key, value in asdict(tags).items()}
