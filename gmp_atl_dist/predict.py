"""Emotion probabilities of recordings by a fine-tuned model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from gmp_atl_dist.audio import SAMPLE_RATE_HZ, decode_pcm16, num_frames, pcm16_to_float
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.inference.predictor import probabilities_of
from gmp_atl_dist.models.stored import load_emotion_model


class Predictor:
    """A fine-tuned model that is loaded once and predicts any number of recordings.

    Args:
        model: folder or URI of a ``finetune`` artefact's files, or of an exported classifier.

    Raises:
        ModelError: ``model`` is not a fine-tuned model.
    """

    def __init__(self, model: str | os.PathLike[str]) -> None:
        self._model = load_emotion_model(os.fspath(model))
        self.emotions: tuple[str, ...] = tuple(self._model.config.emotions)

    def predict(
        self, recordings: Sequence[str | os.PathLike[str] | np.ndarray]
    ) -> list[dict[str, float]]:
        """The probability of each emotion, for each recording, in the order given.

        Args:
            recordings: files in any common format, or waves: fp32 [num_samples] at 16 kHz, mono.

        Raises:
            CorpusError: recordings cannot be used; names all of them, before any is predicted.
        """
        return [self.predict_wave(wave) for _, wave in read_waves(recordings)]

    def predict_wave(self, wave: np.ndarray) -> dict[str, float]:
        """The probability of each emotion for one wave: fp32 [num_samples] at 16 kHz, mono."""
        probabilities = probabilities_of(self._model, [wave])[0]
        return dict(zip(self.emotions, probabilities, strict=True))


def predict_files(model: str, paths: Iterable[Path]) -> Iterator[tuple[Path, dict[str, float]]]:
    """(path, probability of each emotion) for each recording, in the order given.

    Raises:
        ModelError: ``model`` is not a fine-tuned model.
        CorpusError: recordings cannot be read. Names all of them, before the first prediction.
    """
    files = list(paths)
    waves = read_waves(files)
    predictor = Predictor(model)
    for path, (_, wave) in zip(files, waves, strict=True):
        yield path, predictor.predict_wave(wave)


def read_waves(
    recordings: Sequence[str | os.PathLike[str] | np.ndarray],
) -> list[tuple[str, np.ndarray]]:
    """(name, fp32 [num_samples] at 16 kHz) of each recording.

    Raises:
        CorpusError: recordings cannot be used; names all of them.
    """
    waves: list[tuple[str, np.ndarray]] = []
    problems: list[str] = []
    for number, recording in enumerate(recordings):
        name = f"wave {number}" if isinstance(recording, np.ndarray) else os.fspath(recording)
        try:
            waves.append((name, _wave_of(recording)))
        except OSError as e:
            problems.append(f"{name}: cannot be read ({e.strerror})")
        except CorpusError as e:
            problems.append(f"{name}: {e.message}")
    if problems:
        raise CorpusError.of_all("recordings cannot be used:", problems)
    return waves


def _wave_of(recording: str | os.PathLike[str] | np.ndarray) -> np.ndarray:
    if isinstance(recording, np.ndarray):
        if recording.ndim != 1:
            raise CorpusError(f"has shape {recording.shape}, expected [num_samples], mono")
        if not np.isfinite(recording).all():
            raise CorpusError("has samples that are not finite")
        wave = np.asarray(recording, np.float32)
    else:
        wave = pcm16_to_float(decode_pcm16(Path(recording).read_bytes()))
    if not num_frames(len(wave)):
        raise CorpusError(f"is too short, {len(wave)} samples at {SAMPLE_RATE_HZ // 1000} kHz")
    return wave
