"""Stage ``retrain``: the starting backbone, retrained on the pseudo-labels, with one head per scale.

Masked prediction (HuBERT, arXiv 2106.07447, eq. 1-3): cross-entropy over masked frames of cosine logits
divided by a temperature, plus a penalty on the convolutional features. All scales have the same weight.
``masked = false`` is plain cross-entropy over all frames.

Shape suffixes: B utterances, T frames, S scales.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gmp_atl_dist.config import Json, RetrainConfig, hashed
from gmp_atl_dist.stages.base import Handle, sealed
from gmp_atl_dist.stages.trained import TrainedStage
from gmp_atl_dist.store.codebooks import read_codebooks
from gmp_atl_dist.store.training_set import TrainingSet

if TYPE_CHECKING:
    from gmp_atl_dist.training.recipe import Recipe


@dataclass(frozen=True)
class Retrain(TrainedStage):
    """The starting backbone, retrained on the pseudo-labels with one head per scale."""

    config: RetrainConfig
    backbone: Handle
    codebooks: Handle
    labels: Handle
    training: TrainingSet

    kind: ClassVar[str] = "retrain"

    @property
    def fold_name(self) -> str:
        return self.training.fold.name

    def science(self) -> dict[str, Json]:
        return {"retrain": hashed(self.config)}

    def inputs(self) -> Mapping[str, Handle]:
        return {
            "corpus": self.training.corpus,
            "backbone": self.backbone,
            "codebooks": self.codebooks,
            "labels": self.labels,
        }

    def recipe(self) -> Recipe:
        from gmp_atl_dist.recipes.retrain import RetrainRecipe

        backbone, labels, codebooks = map(sealed, (self.backbone, self.labels, self.codebooks))
        return RetrainRecipe(
            self.config, self.training, backbone, labels, read_codebooks(codebooks)
        )
