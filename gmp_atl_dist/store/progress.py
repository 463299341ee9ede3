"""How far a stage is, beside its artefact: ``artifacts/{kind}/{fingerprint}/_progress.json``.

The driver of a mapped stage, or rank 0 of a training, writes it now and then. ``gmp-atl status`` and
the driver of a training read it. It is no part of the artefact, and is removed when the stage is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey

_WRITE_EVERY_S = 5.0
_LONG_AGO_S = 60.0
SMOOTHED_ACCURACY = "accuracy"
"""Of the training batches, without a margin, smoothed; a fraction. It is shown, and stored nowhere else."""
CHANCE = "chance"
"""The accuracy of always naming the most frequent class of the training speakers."""
_FIRST = ("selection_uar", "loss")


class ProgressSnapshot(BaseModel):
    """The progress of a stage at one moment. This is the schema of ``_progress.json``."""

    model_config = ConfigDict(frozen=True)

    done: int
    total: int
    unit: Literal["parts", "updates", "iterations"] = "updates"
    audio_s: float = 0.0
    total_audio_s: float | None = None
    utterances_per_s: float | None = None
    audio_h_per_h: float | None = None
    busy_share: float | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    ends_in_s: float | None = None
    written_s: float | None = Field(default=None, exclude=True)
    """Time of the write in Unix time, as the store reports it; not in the file."""

    def note(self) -> str:
        """Unit, expected end, and all measures: everything except the count."""
        end = [] if self.ends_in_s is None else [f"ends in {_hms(self.ends_in_s)}"]
        return ", ".join([self.unit, *end, *self.measures()])

    def measures(self) -> list[str]:
        """What was measured, the most important first, because a terminal has room for two or three."""
        words = _metrics(self.metrics)
        if self.audio_s:
            total = (
                "" if self.total_audio_s is None else f" of {_number(self.total_audio_s / 3600)} h"
            )
            words.append(f"{_number(self.audio_s / 3600)} h{total}")
        if self.audio_h_per_h is not None:
            words.append(f"{_number(self.audio_h_per_h)} h/h")
        if self.utterances_per_s is not None:
            words.append(f"{_number(self.utterances_per_s)} utt/s")
        if self.busy_share is not None:
            words.append(f"busy {100 * self.busy_share:.0f} %")
        words += [f"{name} {value:g}" for name, value in _others(self.metrics)]
        return words

    def describe(self, now_s: float | None = None) -> str:
        """One line. ``now_s`` is the Unix time now: with it, an old snapshot says how old it is.

        Its measures are left out, because nobody works at that pace any more.
        """
        count = f"{self.done}/{self.total}"
        if now_s is None or self.written_s is None or self.is_fresh(now_s):
            return f"{count} {self.note()}"
        return f"{count} {self.unit}, last seen {_ago(now_s - self.written_s)} ago"

    def is_fresh(self, now_s: float) -> bool:
        """Whether it was written lately, so that somebody works on the stage at Unix time ``now_s``."""
        return self.written_s is not None and now_s - self.written_s < _LONG_AGO_S


def _metrics(metrics: Mapping[str, float]) -> list[str]:
    """Accuracy with chance beside it, then what selects the epoch, then the loss."""
    words: list[str] = []
    if SMOOTHED_ACCURACY in metrics:
        chance = f" (chance {100 * metrics[CHANCE]:.0f} %)" if CHANCE in metrics else ""
        words.append(f"{SMOOTHED_ACCURACY} {100 * metrics[SMOOTHED_ACCURACY]:.0f} %{chance}")
    return words + [f"{name} {metrics[name]:g}" for name in _FIRST if name in metrics]


def _others(metrics: Mapping[str, float]) -> list[tuple[str, float]]:
    shown = {SMOOTHED_ACCURACY, CHANCE, *_FIRST}
    # In words, the accuracy with the margin would only contradict the one without.
    if SMOOTHED_ACCURACY in metrics:
        shown.add("accuracy_with_margin")
    return [(name, value) for name, value in sorted(metrics.items()) if name not in shown]


class ProgressFile:
    """Writes the progress of a stage, at most once per ``every_s``."""

    def __init__(
        self,
        store: Store,
        key: ArtifactKey,
        clock: Callable[[], float] = time.monotonic,
        *,
        every_s: float = _WRITE_EVERY_S,
    ) -> None:
        self._every_s = every_s
        self._store = store
        self._key = key
        self._clock = clock
        self._next_s = clock()

    @property
    def is_due(self) -> bool:
        """Whether :meth:`write` would write now."""
        return self._clock() >= self._next_s

    def write(self, snapshot: ProgressSnapshot) -> None:
        if not self.is_due:
            return
        self._next_s = self._clock() + self._every_s
        text = snapshot.model_dump_json(exclude_defaults=True)
        self._store.put(_path(self._key), text.encode())


def read_progress(store: Store, key: ArtifactKey) -> ProgressSnapshot | None:
    """The last snapshot and its time; None where there is none."""
    path = _path(key)
    try:
        snapshot = ProgressSnapshot.model_validate_json(store.read(path))
    except (ArtifactError, ValidationError):
        return None
    mtime_ns = store.filesystem.get_file_info(store.absolute(path)).mtime_ns
    return snapshot.model_copy(update={"written_s": mtime_ns / 1e9 if mtime_ns else None})


def forget_progress(store: Store, key: ArtifactKey) -> None:
    """Remove the file: the stage is done, or an earlier attempt's pace no longer holds."""
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
