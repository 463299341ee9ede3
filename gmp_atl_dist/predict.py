"""Emotion probabilities of recordings by a fine-tuned model."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Sequence

import numpy as np

from gmp_atl_dist.device import Accelerator
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.inference.classifier import Classifier, default_batch
from gmp_atl_dist.prediction.reading import ReadRecording, read_ahead, read_wave
from gmp_atl_dist.prediction.results import RecordingPrediction
from gmp_atl_dist.prediction.sources import Source
from gmp_atl_dist.prediction.stream import ClipCount, predict_stream
from gmp_atl_dist.prediction.windows import WindowPlan

Recording = str | os.PathLike[str] | np.ndarray
"""A file in any common format, an object of ``s3://``, ``gs://`` or ``az://``, or a wave: float [num_samples]
at 16 kHz, mono.
"""


class Predictor:
    """A fine-tuned model that is loaded once and predicts any number of recordings.

    Args:
        model: folder or URI of a ``finetune`` artefact's files, or of an exported classifier.
        device: ``cpu`` or ``cuda``, for the whole process; None: a GPU if there is one.
        batch: most clips of one forward pass; None: suits the device. No result depends on it.
        threads: forward passes at the same time.

    Attributes:
        emotions: the classes, in order.

    Raises:
        ModelError: ``model`` is not a fine-tuned model, or there is no such device.
        ArtifactError: the files are those of an artefact, and differ from its receipts.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        device: Accelerator | None = None,
        batch: int | None = None,
        threads: int = 1,
    ) -> None:
        self._classifier = Classifier.load(model, device)
        self._batch = batch or default_batch()
        self._threads = threads
        self.emotions: tuple[str, ...] = self._classifier.emotions

    def predict(self, recordings: Sequence[Recording]) -> list[dict[str, float]]:
        """The probability of each emotion, for each recording, in the order given.

        Raises:
            CorpusError: recordings cannot be used; names all of them. :meth:`stream` continues instead.
        """
        results = list(self.stream(recordings))
        problems = [f"{result.file}: {result.error}" for result in results if result.error]
        if problems:
            raise CorpusError.of_all("recordings cannot be used:", problems)
        return [result.verdict.probabilities for result in results if result.verdict]

    def predict_wave(self, wave: np.ndarray) -> dict[str, float]:
        """The probability of each emotion for one wave: float [num_samples] at 16 kHz, mono.

        Raises:
            CorpusError: it is too short, silent, not mono, or not finite.
        """
        return self.predict([wave])[0]

    def windows(
        self, recording: Recording, *, window_s: float = 3.0, hop_s: float = 1.0
    ) -> RecordingPrediction:
        """Emotion over time, and one verdict for the whole recording (``prediction/windows.py``).

        Raises:
            CorpusError: the recording cannot be used.
            ConfigError: the windows are too short, or leave gaps.
        """
        (result,) = self.stream([recording], window_s=window_s, hop_s=hop_s)
        if result.error:
            raise CorpusError(f"{result.file}: {result.error}")
        return result

    def stream(
        self,
        recordings: Iterable[Recording | Source],
        *,
        window_s: float | None = None,
        hop_s: float | None = None,
        count: ClipCount | None = None,
    ) -> Generator[RecordingPrediction]:
        """One result per recording, in the order given, as they come. Memory does not grow with the list.

        A recording that cannot be used has its reason in ``error``, and the others are predicted.

        Args:
            recordings: any iterable; it is read a few recordings ahead.
            window_s: with it, each recording is predicted in windows of this length, whose probabilities
                are in ``windows``.
            hop_s: from one window to the next; None: a third of a window.
            count: kept up to date, for a progress bar.

        Raises:
            ConfigError: the windows are too short, or leave gaps.
            ArtifactError: the object store does not answer.
        """
        plan = None
        if window_s is not None:
            plan = WindowPlan(window_s, window_s / 3 if hop_s is None else hop_s)
        return predict_stream(
            self._classifier,
            self.emotions,
            read_ahead(_as_sources(recordings), self._classifier.channel),
            batch=self._batch,
            threads=self._threads,
            plan=plan,
            count=count,
        )


def _as_sources(recordings: Iterable[Recording | Source]) -> Iterator[Source | ReadRecording]:
    for number, recording in enumerate(recordings):
        if isinstance(recording, np.ndarray):
            yield read_wave(f"wave {number}", recording)
        elif isinstance(recording, Source):
            yield recording
        else:
            yield Source(os.fspath(recording).removeprefix("file://"))
