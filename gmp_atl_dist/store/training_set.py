"""The training set of a fold: a corpus, and the speakers of it that fitted stages may use."""

from __future__ import annotations

from dataclasses import dataclass

from gmp_atl_dist.records import Fold, TrainingSpeakers
from gmp_atl_dist.store.artifact import Artifact


@dataclass(frozen=True)
class TrainingSet:
    """The utterances of ``training_speakers`` in ``corpus``, an ``ingest`` artefact."""

    corpus: Artifact
    training_speakers: TrainingSpeakers

    @property
    def fold(self) -> Fold:
        return self.training_speakers.fold

    @property
    def speakers(self) -> tuple[str, ...]:
        """Names of the training speakers, sorted."""
        return self.training_speakers.speakers
