"""Stage ``retrain``: the stock HuBERT, retrained on the frame labels, one head per scale.

Masked prediction (HuBERT, arXiv 2106.07447, eq. 1-3): cross-entropy over masked frames of cosine
logits divided by a temperature, plus a penalty on the convolutional features; scales weigh the same.
``masked = false`` is plain cross-entropy over all frames.

Shape suffixes: B utterances, T frames, S scales.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gmp_atl_dist.config import Json, RetrainConfig
from gmp_atl_dist.records import Fold
from gmp_atl_dist.stages.base import Pending, sealed
from gmp_atl_dist.stages.learners import Learners
from gmp_atl_dist.stages.trained import TrainedStage
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.codebooks import read_codebooks

if TYPE_CHECKING:
    from gmp_atl_dist.training.recipe import Recipe


@dataclass(frozen=True)
class Retrain(TrainedStage):
    """Frame-level training on the fold's pseudo-labels."""

    config: RetrainConfig
    corpus: Artifact
    backbone: Artifact | Pending
    codebooks: Artifact | Pending
    labels: Artifact | Pending
    fold: Fold
    transductive: bool

    kind: ClassVar[str] = "retrain"

    @property
    def label(self) -> str:
        return f"{self.name} {self.fold.name}"

    def science(self) -> dict[str, Json]:
        return {"retrain": self.config.model_dump(mode="json")}

    def inputs(self) -> Mapping[str, Artifact | Pending]:
        return {
            "corpus": self.corpus,
            "backbone": self.backbone,
            "codebooks": self.codebooks,
            "labels": self.labels,
        }

    def recipe(self) -> Recipe:
        from gmp_atl_dist.recipes.retrain import RetrainRecipe

        backbone, labels, codebooks = map(sealed, (self.backbone, self.labels, self.codebooks))
        speakers = Learners(self.corpus, self.fold, self.transductive).listeners
        return RetrainRecipe(
            self.config, self.corpus, backbone, labels, read_codebooks(codebooks), speakers
        )
