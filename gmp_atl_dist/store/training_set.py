"""The training set of a fold: a corpus, and the speakers of it that fitted stages may use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import pyarrow.compute as pc

from gmp_atl_dist.errors import ArtifactError, CorpusError
from gmp_atl_dist.fold import Fold, TrainingSpeakers
from gmp_atl_dist.store.artifact import Artifact


class Identified(Protocol):
    """An artefact, or one that its stage has not made yet."""

    @property
    def kind(self) -> str: ...
    @property
    def identity(self) -> str: ...


@dataclass(frozen=True)
class TrainingSet:
    """The utterances of ``training_speakers`` in ``corpus``, an ``ingest`` artefact.

    ``genders`` is a ``gender`` artefact: the predicted genders of those whose gender the corpus does not
    tell. Stages read it through ``store/genders.py``.
    """

    corpus: Artifact
    training_speakers: TrainingSpeakers
    genders: Identified | None = None

    @property
    def predicted_genders(self) -> Artifact | None:
        """The sealed artefact of predicted genders; None: none are predicted.

        Raises:
            ArtifactError: its stage has not run yet.
        """
        if self.genders is None or isinstance(self.genders, Artifact):
            return self.genders
        raise ArtifactError(
            f"{self.genders.kind} {self.genders.identity[:12]} does not exist yet; run the stages before "
            f"this one first"
        )

    @property
    def fold(self) -> Fold:
        return self.training_speakers.fold

    @property
    def speakers(self) -> tuple[str, ...]:
        """Names of the training speakers, sorted, where they tell the whole training set.

        Raises:
            CorpusError: the fold names utterances, so that a stage that selects by speakers alone could use
                test utterances.
        """
        if self.training_speakers.utterance_ids is not None:
            raise CorpusError(
                f"fold {self.fold.name!r} names utterances, and a stage asked for its speakers alone; let "
                f"the stage select by members(), or by training_speakers.holds(utterance_id, speaker)"
            )
        return self.training_speakers.speakers

    def members(self) -> pc.Expression:
        """Selects the rows of the training set, by their columns ``speaker`` and ``utterance_id``."""
        is_member = pc.field("speaker").isin(self.training_speakers.speakers)
        ids = self.training_speakers.utterance_ids
        return is_member if ids is None else is_member & pc.field("utterance_id").isin(sorted(ids))
