"""Stage ``gender``: the gender of unlabelled speech that tells none, by the warmed-up model's gender head.

It runs where codebooks, or the frames that they are fitted on, are grouped by gender. The pseudo-label stages
then group such utterances by the predicted gender. Genders that a corpus tells stay as they are. The
probability of each prediction is stored, so the report can say how sure the model was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import pyarrow.compute as pc

from gmp_atl_dist.config import Json
from gmp_atl_dist.records import UNKNOWN_GENDER
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.stages.base import Context, Handle, Seal, Stage, sealed
from gmp_atl_dist.stages.mapped import map_parts
from gmp_atl_dist.store.index import read_index
from gmp_atl_dist.store.training_set import TrainingSet
from gmp_atl_dist.store.writer import ArtifactWriter


@dataclass(frozen=True)
class PredictGender(Stage):
    """The predicted gender of unlabelled utterances that tell none, with its probability."""

    warmup: Handle
    training: TrainingSet

    kind: ClassVar[str] = "gender"

    @property
    def fold_name(self) -> str:
        return self.training.fold.name

    def science(self) -> dict[str, Json]:
        return {**self.training.training_speakers.hashed()}

    def inputs(self) -> Mapping[str, Handle]:
        return {"corpus": self.training.corpus, "warmup": self.warmup}

    def run(self, context: Context, out: ArtifactWriter) -> Seal:
        from gmp_atl_dist.inference.gender import GenderArgument, GenderPredictor

        index = read_index(self.training.corpus).filter(self.training.members())
        # Labelled speech always tells it where it is needed, so these are all unlabelled.
        unknown = index.filter(pc.field("gender") == UNKNOWN_GENDER)
        told = f"{unknown.num_rows} of {index.num_rows} utterances tell no gender"
        context.reporter.line(f"{self.label}: {told}")
        map_parts(
            context,
            out,
            context.tags(self),
            [Task(name) for name in sorted(unknown["part"].unique().to_pylist())],
            GenderPredictor,
            GenderArgument(self.training, sealed(self.warmup), context.store, out.key),
            context.settings.extract,
            outputs=lambda name: [name],
        )
        return Seal()


def gender_inputs(training: TrainingSet) -> dict[str, Handle]:
    """What a stage reads beside its other inputs if it groups utterances of ``training`` by gender."""
    return {} if training.genders is None else {"gender": cast("Handle", training.genders)}
