"""Emotion probabilities of recordings by a fine-tuned model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from gmp_atl_dist.audio import decode_pcm16, num_frames, pcm16_to_float
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.inference.predictor import probabilities_of
from gmp_atl_dist.models.stored import load_emotion_model


def predict_files(model: str, paths: Iterable[Path]) -> Iterator[tuple[Path, dict[str, float]]]:
    """(path, probability by emotion) of each recording, in the order of ``paths``.

    Args:
        model: the folder or store URI of a fine-tuned model.
        paths: audio files.

    Raises:
        ModelError: ``model`` is not a fine-tuned model.
        CorpusError: recordings cannot be read. Names all of them, before the first prediction.
    """
    waves: dict[Path, np.ndarray] = {}
    problems: list[str] = []
    for path in paths:
        try:
            pcm16 = decode_pcm16(path.read_bytes())
            if num_frames(len(pcm16)):
                waves[path] = pcm16_to_float(pcm16)
            else:
                problems.append(f"{path}: is too short, {len(pcm16)} samples at 16 kHz")
        except OSError as e:
            problems.append(f"{path}: cannot be read ({e.strerror})")
        except CorpusError as e:
            problems.append(f"{path}: {e.message}")
    if problems:
        raise CorpusError.of_all("recordings cannot be used:", problems)
    network = load_emotion_model(model)
    emotions = tuple(network.config.emotions)
    for path, wave in waves.items():
        yield path, dict(zip(emotions, probabilities_of(network, [wave])[0], strict=True))
