"""What a trained stage tells the one training loop: its model, its losses, what it leaves behind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from gmp_atl_dist.config import OptimConfig
from gmp_atl_dist.models.backbone import SpeechBackbone
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.index import IndexRow, Utterances
from gmp_atl_dist.training.batches import Batch


@dataclass(frozen=True)
class Losses:
    """ClusterStatistics over a micro-batch. ``sums`` are differentiable, one a term of the loss.

    ``metrics`` are shown only: (sum, count) by name, e.g. hits and tries of an accuracy.
    """

    sums: tuple[torch.Tensor, ...]
    metrics: dict[str, tuple[float, float]] = field(default_factory=dict)


Forward = Callable[..., object]


class Recipe(ABC):
    """A picklable description of one training; every rank builds the same from it.

    The loss is the sum over terms of ``factor * (sum over all ranks) / (count over all ranks)``, so
    the update is that of the whole batch, however it is cut.
    """

    name: str
    optim: OptimConfig
    corpus: Artifact
    utterances: Utterances
    selection: Sequence[IndexRow] = ()
    """Utterances that each epoch is validated on; where there are none, the last epoch is kept."""
    factors: tuple[float, ...] = (1.0,)

    @abstractmethod
    def build(self) -> nn.Module:
        """The model to train, with frozen parameters marked; the same bytes on every rank."""

    @abstractmethod
    def backbone(self, model: nn.Module) -> SpeechBackbone:
        """The backbone within what :meth:`build` made."""

    @abstractmethod
    def counts(self, batch: Batch) -> tuple[float, ...]:
        """What each term's sum will be divided by, after adding up over ranks."""

    @abstractmethod
    def losses(self, forward: Forward, batch: Batch) -> Losses:
        """The terms' sums; ``forward`` calls the model that :meth:`build` made."""

    @abstractmethod
    def export(self, model: nn.Module) -> dict[str, bytes]:
        """The files that the artefact keeps."""

    def predict(self, forward: Forward, batch: Batch) -> tuple[list[int], list[int], int]:
        """(true, predicted, number of classes) of a batch of ``selection``."""
        raise TypeError(f"{self.name} has nothing to select on")
