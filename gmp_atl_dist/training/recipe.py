"""The protocol between a trained stage and the training loop: model, losses, and the files to keep."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from gmp_atl_dist.config import OptimConfig
from gmp_atl_dist.models.backbone import SpeechBackbone
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.index import IndexRow, Utterances
from gmp_atl_dist.training.batches import Batch
from gmp_atl_dist.training.meter import Number


@dataclass(frozen=True)
class Losses:
    """Sums over a micro-batch. ``sums`` are differentiable, one per term of the loss.

    ``metrics`` are only shown: (sum, count) by name, e.g. hits and attempts of an accuracy. What is on the
    device stays there until the loop reads it, so that it does not wait in every pass.
    """

    sums: tuple[torch.Tensor, ...]
    metrics: Mapping[str, tuple[Number, Number]] = field(default_factory=dict)
    hits: tuple[Number, Number] | None = None
    """(hits, attempts) of an accuracy for people who watch: shown smoothed, and in no artefact."""


Forward = Callable[..., object]


class Recipe(ABC):
    """A picklable description of one training. Every rank builds the same model from it.

    The loss is the sum over terms of ``factor * (sum over all ranks) / (count over all ranks)``. So the
    update is that of the whole batch, whatever the number of ranks and micro-batches.
    """

    name: str
    optim: OptimConfig
    corpus: Artifact
    utterances: Utterances
    selection: Sequence[IndexRow] = ()
    """The utterances on which each epoch is validated. If there are none, the last epoch is kept."""
    unlabelled_share: float | None = None
    """Of the audio of an update, where there are unlabelled sources; None: as much as they have."""
    factors: tuple[float, ...] = (1.0,)
    chance: float | None = None
    """What the accuracy of :attr:`Losses.hits` is without any knowledge."""

    @abstractmethod
    def build(self) -> nn.Module:
        """The model to train, with its frozen parameters marked; the same bytes on every rank."""

    @abstractmethod
    def backbone(self, model: nn.Module) -> SpeechBackbone:
        """The backbone within what :meth:`build` made."""

    def start_update(self, model: nn.Module, step: int, total_steps: int) -> None:
        """Set what of the model depends on the update, counted from 0. Called on every rank before it."""
        return None

    @abstractmethod
    def counts(self, batch: Batch) -> tuple[float, ...]:
        """The divisor of each term: its sum over all ranks divides the sum of the term."""

    @abstractmethod
    def losses(self, forward: Forward, batch: Batch) -> Losses:
        """The sum of each term. ``forward`` calls the model that :meth:`build` made."""

    @abstractmethod
    def export(self, model: nn.Module) -> dict[str, bytes]:
        """The files that the artefact keeps."""

    def predict(self, forward: Forward, batch: Batch) -> tuple[list[int], list[int], int]:
        """(true, predicted, number of classes) of a batch of ``selection``."""
        raise TypeError(f"{self.name} has nothing to select on")
