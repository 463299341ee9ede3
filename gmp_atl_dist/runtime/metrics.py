"""How busy a worker process is, and what it has done, as Ray's metrics."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Amounts:
    """What one task did: utterances and their audio; both 0 where it had none to do with audio."""

    utterances: int = 0
    audio_s: float = 0.0


def amounts(result: str) -> Amounts:
    """Of a worker's result, a JSON list of receipts. What is no such list amounts to nothing.

    A task may write a part for each of several layers, with the same rows in each of them; their
    shares of the audio add up.
    """
    try:
        receipts = json.loads(result)
        audio_s = sum(float(receipt["audio_s"]) for receipt in receipts)
        rows = max((int(receipt["rows"]) for receipt in receipts), default=0)
    except (ValueError, TypeError, KeyError):
        return Amounts()
    return Amounts(rows, audio_s) if audio_s else Amounts()


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


class Metrics:
    """What Ray exports of one worker process, tagged with the stage."""

    def __init__(self, label: str) -> None:
        from ray.util.metrics import Counter, Gauge

        tags = {"stage": label or "none"}
        self._parts = Counter(
            "gmp_atl_parts_total", "tasks done", tag_keys=("stage",)
        ).set_default_tags(tags)
        self._utterances = Counter(
            "gmp_atl_utterances_total", "utterances done", tag_keys=("stage",)
        ).set_default_tags(tags)
        self._audio_s = Counter(
            "gmp_atl_audio_seconds_total", "audio of the utterances done", tag_keys=("stage",)
        ).set_default_tags(tags)
        self._busy = Gauge(
            "gmp_atl_busy_share", "share of its time that a worker computes", tag_keys=("stage",)
        ).set_default_tags(tags)

    def count(self, result: str, busy_s: float, alive_s: float) -> None:
        done = amounts(result)
        self._parts.inc(1)
        # Ray refuses to count zero.
        if done.audio_s:
            self._utterances.inc(done.utterances)
            self._audio_s.inc(done.audio_s)
        if alive_s:
            self._busy.set(busy_s / alive_s)
