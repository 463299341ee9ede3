"""A HuBERT that takes its time, so that there is some to kill it in. Workers import this by name."""

from __future__ import annotations

import time
from collections.abc import Sequence

from torch import Tensor

from gmp_atl_dist.inference.forward import load_backbone
from gmp_atl_dist.models.backbone import FrameModel
from gmp_atl_dist.store.artifact import Artifact

SLOW_S = 0.15


class Slow:
    """Another model, and a pause before each of its batches."""

    def __init__(self, model: FrameModel) -> None:
        self._model = model

    def __call__(self, waves: Sequence[Tensor], most_frames: int) -> list[dict[int, Tensor]]:
        time.sleep(SLOW_S)
        return self._model(waves, most_frames)


def load_slow(model: Artifact, layers: tuple[int, ...], window: int, context: int) -> FrameModel:
    return Slow(load_backbone(model, layers, window, context))
