"""A classifier with random weights, as an exported folder, and recordings for it."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

from benchmarks.harness.rounds import MeasurementError
from gmp_atl_dist.corpora.synth import write_synthetic_corpus
from gmp_atl_dist.prediction.sources import find_sources

EMOTIONS = ("angry", "calm", "happy", "neutral", "sad", "surprised")
_SYNTHETIC_S = (1.0, 3.1)
"""Shortest and longest synthetic recording; the mean is that of nEMO."""
_SYNTHETIC_GROUPS = 40
"""Speakers times emotions of the synthetic corpus."""


def add_recording_options(parser: ArgumentParser, files: int) -> None:
    """``--corpus`` and ``--files``."""
    parser.add_argument("--corpus", help="folder of recordings; without it a synthetic corpus")
    parser.add_argument("--files", type=int, default=files, metavar="N", help="recordings")


def write_exported_classifier(folder: str, size: str) -> None:
    """The folder that ``gmp-atl model export --what classifier`` writes, without its card.

    Args:
        folder: is made.
        size: of HuBERT, such as ``base``.
    """
    import json
    from importlib.resources import files

    # The format of an export is that of this module; nothing of it is written a second time here.
    from gmp_atl_dist.exchange.models import _CODE, _classifier_config, _json, _preprocessor
    from gmp_atl_dist.models.emotion import EmotionModel
    from gmp_atl_dist.models.hubert import build_random
    from gmp_atl_dist.models.source import model_to_files

    made = model_to_files(EmotionModel.from_backbone(build_random(size, 0), EMOTIONS))
    values = json.loads(made["config.json"])
    written = {
        "config.json": _json(_classifier_config(values)),
        "preprocessor_config.json": _json(_preprocessor(values)),
        "model.safetensors": made["model.safetensors"],
        _CODE: (files("gmp_atl_dist.exchange") / _CODE).read_bytes(),
    }
    target = Path(folder)
    target.mkdir(parents=True)
    for name, data in written.items():
        (target / name).write_bytes(data)


def recordings(corpus: str | None, files: int, folder: str) -> list[str]:
    """Paths of ``files`` recordings, evenly spaced over the corpus.

    Raises:
        MeasurementError: the corpus has fewer.
    """
    if corpus is None:
        corpus = f"{folder}/corpus"
        each = -(-files // _SYNTHETIC_GROUPS)
        write_synthetic_corpus(
            Path(corpus), utterances_per_speaker_and_emotion=each, seconds=_SYNTHETIC_S
        )
    found = [source.name for source in find_sources([corpus]) if not source.error]
    if len(found) < files:
        raise MeasurementError(f"{corpus} has {len(found)} recordings; lower --files")
    return [found[i * len(found) // files] for i in range(files)]
