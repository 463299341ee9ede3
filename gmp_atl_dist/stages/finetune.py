"""Stage ``finetune``: a backbone, trained on emotion labels: the retrained one, or an earlier one.

By default with attentive pooling and AM-Softmax (Wang et al. 2018, arXiv 1801.05599).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from gmp_atl_dist.config import FinetuneConfig, FoldsConfig, Json, hashed
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.stages.base import Handle, sealed
from gmp_atl_dist.stages.trained import TrainedStage
from gmp_atl_dist.store.artifact import Artifact

SelectionSide: TypeAlias = Literal["valid", "test"]

if TYPE_CHECKING:
    from gmp_atl_dist.training.recipe import Recipe


def selection_side(config: FinetuneConfig, folds: FoldsConfig) -> SelectionSide | None:
    """The speakers that the epoch is chosen on: test speakers only in the protocol ``peek``."""
    if folds.protocol == "peek":
        return "test"
    return "valid" if config.select == "valid" else None


@dataclass(frozen=True)
class Finetune(TrainedStage):
    """The backbone of ``finetune.start`` with pooling and emotion classes, trained on emotion labels."""

    config: FinetuneConfig
    corpus: Artifact
    begin: Handle
    """The artefact that ``finetune.start`` names; with pretraining, ``backbone`` is its last model."""
    fold: Fold
    select_on: SelectionSide | None

    kind: ClassVar[str] = "finetune"

    @property
    def starts_from(self) -> str:
        # "retrained" has been the name of this input since there was no other choice.
        return "retrained" if self.begin.kind == "retrain" else self.begin.kind

    @property
    def fold_name(self) -> str:
        return self.fold.name

    def science(self) -> dict[str, Json]:
        return {
            "finetune": hashed(self.config),
            "train_speakers": list(self.fold.train_speakers),
            "select_on": self.select_on,
            "selection_speakers": list(self._selection_speakers()),
            **self.fold.hashed_utterances("train", *self._selection_sides()),
        }

    def inputs(self) -> Mapping[str, Handle]:
        return {"corpus": self.corpus, self.starts_from: self.begin}

    def recipe(self) -> Recipe:
        from gmp_atl_dist.recipes.finetune import FinetuneRecipe

        return FinetuneRecipe(
            self.config,
            self.corpus,
            sealed(self.begin),
            self.fold.training_speakers(),
            self._selection_speakers(),
            self.fold.utterance_ids(*self._selection_sides()),
        )

    def _selection_speakers(self) -> tuple[str, ...]:
        return self.fold.speakers(self.select_on) if self.select_on else ()

    def _selection_sides(self) -> tuple[SelectionSide, ...]:
        return (self.select_on,) if self.select_on else ()
