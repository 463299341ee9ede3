"""Stage ``evaluate``: the predictions of the fine-tuned model for the fold's test speakers.

Predictions are stored per utterance, so every score can be computed again from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from gmp_atl_dist.config import Json
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.records import PREDICTION_SCHEMA
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.stages.base import Context, Handle, Seal, Stage, sealed
from gmp_atl_dist.stages.mapped import map_parts
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.readers import read_utterances
from gmp_atl_dist.store.writer import ArtifactWriter


@dataclass(frozen=True)
class Prediction:
    """The prediction for one test utterance; ``probabilities`` are in the order of the class list."""

    utterance_id: str
    speaker: str
    gender: str
    emotion: str
    predicted: str
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Evaluate(Stage):
    """The probability of each emotion for every test utterance."""

    corpus: Artifact
    finetuned: Handle
    fold: Fold

    kind: ClassVar[str] = "evaluate"

    @property
    def fold_name(self) -> str:
        return self.fold.name

    def science(self) -> dict[str, Json]:
        return {
            "test_speakers": list(self.fold.test_speakers),
            **self.fold.hashed_utterances("test"),
        }

    def inputs(self) -> Mapping[str, Handle]:
        return {"corpus": self.corpus, "finetuned": self.finetuned}

    def run(self, context: Context, out: ArtifactWriter) -> Seal:
        from gmp_atl_dist.inference.predictor import PartPredictor, PartPredictorArgument

        tested = self.fold.select(read_utterances(self.corpus), "test")
        map_parts(
            context,
            out,
            context.tags(self),
            [Task(name) for name in sorted({u.part for u in tested})],
            PartPredictor,
            PartPredictorArgument(
                self.corpus,
                sealed(self.finetuned),
                frozenset(u.utterance_id for u in tested),
                context.store,
                out.key,
            ),
            context.settings.extract,
            outputs=lambda name: [name],
        )
        return Seal()


def read_predictions(artifact: Artifact) -> tuple[Prediction, ...]:
    """All predictions of a fold, sorted by utterance id."""
    rows = [
        row
        for name in artifact.part_names
        for row in artifact.read_part(name, PREDICTION_SCHEMA).to_pylist()
    ]
    rows.sort(key=lambda r: r["utterance_id"])
    return tuple(
        Prediction(**{**row, "probabilities": tuple(row["probabilities"])}) for row in rows
    )
