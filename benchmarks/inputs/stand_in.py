"""Models that cost nothing, or sleep as long as a device would compute, to measure what surrounds a model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from gmp_atl_dist.audio import SAMPLE_RATE_HZ, num_frames
from gmp_atl_dist.inference.forward import FrameModel, Loader
from gmp_atl_dist.store.artifact import Artifact


@dataclass(frozen=True)
class StandIn:
    """Zeros as features, ``dim`` wide, after ``sleep`` seconds for each second of audio."""

    layers: tuple[int, ...]
    dim: int
    sleep: float

    def __call__(self, waves: Sequence[Tensor], most_frames: int) -> list[dict[int, Tensor]]:
        if self.sleep:
            time.sleep(self.sleep * sum(map(len, waves)) / SAMPLE_RATE_HZ)
        return [
            {layer: torch.zeros(num_frames(len(wave)), self.dim) for layer in self.layers}
            for wave in waves
        ]


def stand_in(dim: int, sleep: float = 0.0) -> Loader:
    """A loader of such a model."""
    return partial(_load, dim, sleep)


def _load(
    dim: int,
    sleep: float,
    model: Artifact,
    layers: tuple[int, ...],
    window_frames: int,
    context_frames: int,
) -> FrameModel:
    return StandIn(layers, dim, sleep)
