"""Classifiers with random weights in a folder, for tests of what uses a model and not of its answers."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import HubertConfig

from gmp_atl_dist.models.emotion import EmotionModel
from gmp_atl_dist.models.hubert import Hubert
from gmp_atl_dist.models.sizes import NAMED_SIZES
from gmp_atl_dist.models.source import model_to_files

EMOTIONS = ("anger", "happiness", "neutral", "sadness")


def write_classifier(folder: Path, size: str = "tiny", seed: int = 3) -> Path:
    """The files of a classifier of a named size, as ``finetune`` writes them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hubert = Hubert(HubertConfig.from_dict(dict(NAMED_SIZES[size])))
        model = EmotionModel.from_backbone(hubert, EMOTIONS).eval()
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in model_to_files(model).items():
        (folder / name).write_bytes(data)
    return folder
