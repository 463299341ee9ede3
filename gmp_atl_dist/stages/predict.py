"""Stage ``predict``: a fine-tuned model on every utterance of a corpus, which need not have labels.

It is not a part of the method, and no stage depends on it. ``gmp-atl predict --ray`` runs it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from gmp_atl_dist.config import Json
from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.records import DEFAULT_CHANNEL, PREDICTION_SCHEMA, Channel
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.stages.base import Context, Seal, Stage
from gmp_atl_dist.stages.mapped import map_parts
from gmp_atl_dist.store.artifact import Artifact, find_artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.readers import audio_part_names
from gmp_atl_dist.store.writer import ArtifactWriter

_KIND_OF_MODEL = "finetune"


@dataclass(frozen=True)
class Predict(Stage):
    """The probability of each emotion for every utterance of ``corpus``.

    Parts are those of ``ingest``, so the same bytes come from any number of workers. The classes are the
    model's. They are in the manifest's notes, under ``emotions``.
    """

    corpus: Artifact
    finetuned: Artifact
    emotions: tuple[str, ...]
    """The classes of the model, in order. They follow from it, so they are not hashed."""

    kind: ClassVar[str] = "predict"

    def science(self) -> dict[str, Json]:
        return {}

    def inputs(self) -> Mapping[str, Artifact]:
        return {"corpus": self.corpus, "finetuned": self.finetuned}

    def run(self, context: Context, out: ArtifactWriter) -> Seal:
        from gmp_atl_dist.inference.predictor import PartPredictor, PartPredictorArgument

        map_parts(
            context,
            out,
            context.tags(self),
            [Task(name) for name in audio_part_names(self.corpus)],
            PartPredictor,
            PartPredictorArgument(self.corpus, self.finetuned, None, context.store, out.key),
            context.settings.extract,
            outputs=lambda name: [name],
        )
        return Seal(notes={"emotions": json.dumps(self.emotions)})


def finetuned_at(uri: str) -> Artifact:
    """The ``finetune`` artefact whose ``files/`` folder ``uri`` is.

    Raises:
        ArtifactError: ``uri`` is something else, or the artefact is not complete.
    """
    root, _, rest = Store.open(uri).uri.rpartition("/artifacts/")
    steps = rest.split("/")
    if (
        root
        and len(steps) in (2, 3)
        and steps[0] == _KIND_OF_MODEL
        and steps[2:] in ([], ["files"])
    ):
        artifact = find_artifact(Store.open(root), ArtifactKey(_KIND_OF_MODEL, steps[1]))
        if artifact is not None:
            return artifact
    raise ArtifactError(
        f"{uri} is not a complete finetune artefact, which predict --ray needs; give the name of a run with "
        f"--root, or ROOT/artifacts/finetune/FINGERPRINT/files"
    )


def emotions_of(finetuned: Artifact) -> tuple[str, ...]:
    """The classes of a ``finetune`` artefact, in order."""
    return tuple(json.loads(finetuned.read_file("config.json"))["emotions"])


def channel_of(finetuned: Artifact) -> Channel:
    """What a ``finetune`` artefact was trained on of recordings with several channels."""
    return json.loads(finetuned.read_file("config.json")).get("channel", DEFAULT_CHANNEL)


def read_prediction_part(artifact: Artifact, name: str) -> Iterator[tuple[str, list[float]]]:
    """(utterance id, probabilities) of one part of a ``predict`` artefact, sorted by id."""
    table = artifact.read_part(name, PREDICTION_SCHEMA, ["utterance_id", "probabilities"])
    ids, probabilities = (table[column].to_pylist() for column in table.column_names)
    return zip(ids, probabilities, strict=True)
