"""Stage ``pretrain``: a HuBERT from random weights on frame labels, for sites without a checkpoint.

HuBERT, arXiv 2106.07447: iteration 1 predicts clusters of MFCC, iteration 2 clusters of a layer of the
model of iteration 1. Both start from the random weights of ``backbone``; iteration 2 takes over only the
labels. Everything is fitted on the fold's training speakers, because warm-up and retraining start from
the result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gmp_atl_dist.config import FramePredictionConfig, Json, hashed
from gmp_atl_dist.stages.base import Context, Handle, Seal, sealed
from gmp_atl_dist.stages.label import HISTOGRAM_NAME
from gmp_atl_dist.stages.trained import TrainedStage
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.codebooks import read_codebooks
from gmp_atl_dist.store.training_set import TrainingSet
from gmp_atl_dist.store.writer import ArtifactWriter

if TYPE_CHECKING:
    from gmp_atl_dist.training.recipe import Recipe

LARGEST_CLUSTER_NOTE = "largest_cluster_share"
"""Share of all training frames: the accuracy of always predicting the most frequent label."""


@dataclass(frozen=True)
class Pretrain(TrainedStage):
    """A backbone from random weights, after one iteration of masked prediction."""

    config: FramePredictionConfig
    backbone: Artifact
    codebooks: Handle
    labels: Handle
    training: TrainingSet
    iteration: int = 1

    kind: ClassVar[str] = "pretrain"

    @property
    def fold_name(self) -> str:
        return self.training.fold.name

    def science(self) -> dict[str, Json]:
        return {"pretrain": hashed(self.config)}

    def inputs(self) -> Mapping[str, Handle]:
        return {
            "corpus": self.training.corpus,
            "backbone": self.backbone,
            "codebooks": self.codebooks,
            "labels": self.labels,
        }

    def recipe(self) -> Recipe:
        from gmp_atl_dist.recipes.retrain import RetrainRecipe

        return RetrainRecipe(
            self.config,
            self.training,
            self.backbone,
            sealed(self.labels),
            read_codebooks(sealed(self.codebooks)),
            name=self.kind,
        )

    def run(self, context: Context, out: ArtifactWriter) -> Seal:
        super().run(context, out)
        return Seal(notes={LARGEST_CLUSTER_NOTE: str(_largest_share(sealed(self.labels)))})


def _largest_share(labels: Artifact) -> float:
    (counts,) = json.loads(labels.read_file(HISTOGRAM_NAME))["counts"]
    return max(counts) / sum(counts)
