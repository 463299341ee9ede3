"""How far a stage is: words for a person, and a small file in the store for ``gmp-atl status``.

Whoever works on a stage leaves ``_progress.json`` beside its parts now and then: the driver of a
mapped stage, rank 0 of a training. It is no part of the artefact, and goes when the stage is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.runtime import Task, TaskResult, amounts
from gmp_atl_dist.store.artifact import ArtifactKey
from gmp_atl_dist.store.filesystem import Store

_LEAVE_EVERY_S = 5.0
_LONG_AGO_S = 60.0

Clock = Callable[[], float]


class Snapshot(BaseModel):
    """How far a stage was at one moment; what ``_progress.json`` holds."""

    model_config = ConfigDict(frozen=True)

    done: int
    total: int
    unit: Literal["parts", "updates", "iterations"] = "updates"
    audio_s: float = 0.0
    total_audio_s: float | None = None
    utterances_per_s: float | None = None
    audio_h_per_h: float | None = None
    busy_share: float | None = None
    measures: dict[str, float] = Field(default_factory=dict)
    ends_in_s: float | None = None
    written_s: float | None = Field(default=None, exclude=True)
    """When, in Unix time; the store's word, not the file's."""

    def note(self) -> str:
        """All but the count, which a bar shows by itself."""
        words: list[str] = [self.unit]
        if self.audio_s:
            total = (
                "" if self.total_audio_s is None else f" of {_number(self.total_audio_s / 3600)} h"
            )
            words.append(f"{_number(self.audio_s / 3600)} h{total}")
        if self.utterances_per_s is not None:
            words.append(f"{_number(self.utterances_per_s)} utt/s")
        if self.audio_h_per_h is not None:
            words.append(f"{_number(self.audio_h_per_h)} h/h")
        if self.busy_share is not None:
            words.append(f"busy {100 * self.busy_share:.0f} %")
        words += [f"{name} {value:g}" for name, value in sorted(self.measures.items())]
        if self.ends_in_s is not None:
            words.append(f"ends in {_hms(self.ends_in_s)}")
        return ", ".join(words)

    def words(self, now_s: float | None = None) -> str:
        """One line; with the Unix time now, also how long ago that was if it was long ago."""
        line = f"{self.done}/{self.total} {self.note()}"
        if now_s is None or self.written_s is None or now_s - self.written_s < _LONG_AGO_S:
            return line
        return f"{line}, last seen {_ago(now_s - self.written_s)} ago"


class Pace:
    """When something will end that has gone on like this from ``done`` on."""

    def __init__(self, done: float, clock: Clock = time.monotonic) -> None:
        self._done = done
        self._clock = clock
        self._began_s = clock()

    @property
    def elapsed_s(self) -> float:
        return self._clock() - self._began_s

    def ends_in_s(self, done: float, total: float) -> float | None:
        """None before anything was gained, and at the end."""
        if done <= self._done or done >= total:
            return None
        return self.elapsed_s * (total - done) / (done - self._done)


class Progress:
    """Adds up what the workers of a mapped stage report.

    Rates are of this run, so parts that were done before it count as done, and for nothing else. How
    much audio there is in all follows from the share of the tasks' costs; where a task's cost goes
    with its audio, that is exact.
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
        done = amounts(result.result)
        self._done += 1
        self._cost += self._costs.pop(result.name)
        if not self._costs:
            self._cost = self._total_cost  # but for rounding it is
        self._audio_s += done.audio_s
        self._utterances += done.utterances
        before = self._workers.get(result.worker)
        # A worker's results may overtake each other.
        if before is None or before.alive_s < result.alive_s:
            self._workers[result.worker] = result

    def snapshot(self) -> Snapshot:
        elapsed_s, audio_s = self._pace.elapsed_s, self._audio_before_s + self._audio_s
        alive_s = sum(r.alive_s for r in self._workers.values())
        busy_s = sum(r.busy_s for r in self._workers.values())
        has_rate = self._audio_s > 0 and elapsed_s > 0
        return Snapshot(
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


class ProgressFile:
    """Where a driver leaves its stage's progress, some seconds apart."""

    def __init__(self, store: Store, key: ArtifactKey, clock: Clock = time.monotonic) -> None:
        self._store = store
        self._key = key
        self._clock = clock
        self._next_s = clock()

    def leave(self, snapshot: Snapshot) -> None:
        if self._clock() < self._next_s:
            return
        self._next_s = self._clock() + _LEAVE_EVERY_S
        text = snapshot.model_dump_json(exclude_defaults=True)
        self._store.put(_path(self._key), text.encode())


def read_progress(store: Store, key: ArtifactKey) -> Snapshot | None:
    """What was left last, and when; None where nothing was."""
    path = _path(key)
    try:
        seen = Snapshot.model_validate_json(store.read(path))
    except (ArtifactError, ValidationError):
        return None
    mtime_ns = store.filesystem.get_file_info(store.absolute(path)).mtime_ns
    return seen.model_copy(update={"written_s": mtime_ns / 1e9 if mtime_ns else None})


def forget_progress(store: Store, key: ArtifactKey) -> None:
    """The stage is done, and nobody works on it any more."""
    store.delete(_path(key))


def _path(key: ArtifactKey) -> str:
    return f"{key.prefix}/_progress.json"


def _number(value: float) -> str:
    """About three digits, never in powers of ten."""
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def _hms(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{s:02d}"


def _ago(seconds: float) -> str:
    for unit, length_s in (("d", 86_400), ("h", 3600)):
        if seconds >= 2 * length_s:
            return f"{seconds // length_s:.0f} {unit}"
    return f"{seconds // 60:.0f} min"
