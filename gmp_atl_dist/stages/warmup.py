"""Stage ``warmup``: the backbone with an emotion and a gender head, trained together.

After it, frame features carry emotion and gender. This is how gender enters the pseudo-labels. Loss:
``(1 - g) * CE(emotion) + g * CE(gender)`` with ``g`` = ``warmup.gender_weight``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gmp_atl_dist.config import Json, WarmupConfig, hashed
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.stages.base import Handle, sealed
from gmp_atl_dist.stages.trained import TrainedStage
from gmp_atl_dist.store.artifact import Artifact

if TYPE_CHECKING:
    from gmp_atl_dist.training.recipe import Recipe


@dataclass(frozen=True)
class Warmup(TrainedStage):
    """The backbone with an emotion and a gender head, trained together."""

    config: WarmupConfig
    corpus: Artifact
    backbone: Handle
    fold: Fold

    kind: ClassVar[str] = "warmup"

    @property
    def fold_name(self) -> str:
        return self.fold.name

    def science(self) -> dict[str, Json]:
        return {
            "warmup": hashed(self.config),
            "train_speakers": list(self.fold.train_speakers),
            **self.fold.hashed_utterances("train"),
        }

    def inputs(self) -> Mapping[str, Handle]:
        return {"corpus": self.corpus, "backbone": self.backbone}

    def recipe(self) -> Recipe:
        from gmp_atl_dist.recipes.warmup import WarmupRecipe

        speakers = self.fold.training_speakers()
        return WarmupRecipe(self.config, self.corpus, sealed(self.backbone), speakers)
