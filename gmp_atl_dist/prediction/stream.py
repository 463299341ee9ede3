"""From recordings in memory to predictions, in order, in batches on threads. Memory stays bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from gmp_atl_dist.audio import SAMPLE_RATE_HZ, pcm16_to_float
from gmp_atl_dist.prediction.notes import notes_of
from gmp_atl_dist.prediction.reading import ReadRecording
from gmp_atl_dist.prediction.results import EmotionSpan, RecordingPrediction
from gmp_atl_dist.prediction.windows import WindowPlan, verdict_of, with_signal

Classify = Callable[[Sequence[np.ndarray]], list[tuple[float, ...]]]
"""K probabilities for each float32 wave; called from several threads."""


@dataclass
class ClipCount:
    """Clips of all recordings so far: a long recording has many, and takes long before its result comes.

    Attributes:
        done: clips that are predicted.
        known: clips of all recordings that were opened.
        changed: called after each batch, in the thread that takes the results.
    """

    done: int = 0
    known: int = 0
    changed: Callable[[], None] = lambda: None


_BATCH_SAMPLES = 120 * SAMPLE_RATE_HZ
"""Most audio of a batch of several clips."""


@dataclass
class _Open:
    """A recording whose clips are not all predicted yet."""

    name: str
    num_samples: int
    clips: list[tuple[int, int]]
    notes: tuple[str, ...] = ()
    error: str = ""
    probabilities: list[tuple[float, ...]] = field(default_factory=list)

    @classmethod
    def of(cls, recording: ReadRecording, plan: WindowPlan | None) -> _Open:
        samples = recording.samples
        if samples is None:
            return cls(recording.name, 0, [], error=recording.error)
        planned = [(0, len(samples))] if plan is None else plan.cut(len(samples))
        # A recording of steps has a signal although each of its windows may have none.
        clips = with_signal(samples, planned) or planned
        notes = notes_of(
            samples,
            recording.source_rate_hz,
            windowed=plan is not None,
            silent_windows=len(clips) < len(planned),
        )
        return cls(recording.name, len(samples), clips, notes)

    @property
    def is_complete(self) -> bool:
        return len(self.probabilities) == len(self.clips)

    def close(self, emotions: Sequence[str], windowed: bool) -> RecordingPrediction:
        if self.error:
            return RecordingPrediction(self.name, error=self.error)

        def span(start: int, end: int, values: Sequence[float]) -> EmotionSpan:
            named = dict(zip(emotions, values, strict=True))
            return EmotionSpan(start / SAMPLE_RATE_HZ, end / SAMPLE_RATE_HZ, named)

        if windowed:
            whole = verdict_of(self.clips, self.probabilities)
            pairs = zip(self.clips, self.probabilities, strict=True)
            windows = tuple(span(start, end, values) for (start, end), values in pairs)
        else:
            (whole,), windows = self.probabilities, ()
        return RecordingPrediction(
            self.name, span(0, self.num_samples, whole), windows, notes=self.notes
        )


def predict_stream(
    classify: Classify,
    emotions: Sequence[str],
    recordings: Iterable[ReadRecording],
    *,
    batch: int,
    threads: int = 1,
    plan: WindowPlan | None = None,
    count: ClipCount | None = None,
) -> Generator[RecordingPrediction]:
    """The prediction of each recording, in order. A bad one is an error of its own and stops nothing.

    Args:
        classify: see :data:`Classify`.
        emotions: names of the K probabilities.
        recordings: taken when there is room for them.
        batch: most clips of one call. The first calls have fewer, so that the first results come soon.
        threads: calls at the same time.
        plan: windows; None predicts each recording as a whole.
        count: kept up to date, for a progress bar.
    """
    opened: deque[_Open] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="predict")
    try:
        batches = _Batches(classify, pool, batch, threads, count or ClipCount())
        for recording in recordings:
            entry = _Open.of(recording, plan)
            opened.append(entry)
            batches.count.known += len(entry.clips)
            for start, end in entry.clips:
                assert recording.samples is not None
                batches.add(entry, recording.samples[start:end])
            while opened and opened[0].is_complete:
                yield opened.popleft().close(emotions, plan is not None)
        batches.finish()
        for entry in opened:
            yield entry.close(emotions, plan is not None)
    finally:
        pool.shutdown(cancel_futures=True)


class _Batches:
    """Collects clips, and keeps at most one batch more than there are threads under way."""

    def __init__(
        self,
        classify: Classify,
        pool: ThreadPoolExecutor,
        batch: int,
        threads: int,
        count: ClipCount,
    ) -> None:
        self._classify, self._pool, self._threads = classify, pool, threads
        self.count = count
        self._most = batch
        self._now = 1
        self._clips: list[tuple[_Open, np.ndarray]] = []
        self._held = 0
        self._running: deque[tuple[Future[list[tuple[float, ...]]], list[_Open]]] = deque()

    def add(self, entry: _Open, samples: np.ndarray) -> None:
        if self._clips and self._held + len(samples) > _BATCH_SAMPLES:
            self._submit()
        self._clips.append((entry, samples))
        self._held += len(samples)
        if len(self._clips) >= self._now:
            self._submit()

    def finish(self) -> None:
        if self._clips:
            self._submit()
        self._collect(0)

    def _submit(self) -> None:
        waves = [samples for _, samples in self._clips]
        future = self._pool.submit(_classified, self._classify, waves)
        self._running.append((future, [entry for entry, _ in self._clips]))
        self._clips, self._held = [], 0
        if len(self._running) > self._threads:
            self._now = min(self._most, 2 * self._now)
        self._collect(self._threads)

    def _collect(self, leave: int) -> None:
        """Take results in order until at most ``leave`` batches are left, and those that are there."""
        while self._running and (len(self._running) > leave or self._running[0][0].done()):
            future, entries = self._running.popleft()
            for entry, values in zip(entries, future.result(), strict=True):
                entry.probabilities.append(values)
            self.count.done += len(entries)
            self.count.changed()


def _classified(classify: Classify, clips: list[np.ndarray]) -> list[tuple[float, ...]]:
    return classify([pcm16_to_float(x) if x.dtype == np.int16 else x for x in clips])
