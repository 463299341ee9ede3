"""What a rank is given: what to train, and where the result goes."""

from __future__ import annotations

from dataclasses import dataclass

from gmp_atl_dist.config import TrainWorkersConfig
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.checkpoints import Checkpoints
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.tags import NO_TAGS, Tags
from gmp_atl_dist.training.recipe import Recipe


@dataclass(frozen=True)
class TrainJob:
    """Everything that a rank is given: what to train, and where the result goes.

    ``frontend`` is read instead of audio: an artefact of kind ``frontend`` of the frozen encoder that
    the recipe starts from, where nothing is cropped. ``stages/frontend.py`` makes it.
    """

    recipe: Recipe
    store: Store
    key: ArtifactKey
    workers: TrainWorkersConfig
    frontend: Artifact | None = None
    tags: Tags = NO_TAGS
    """What logs of metrics call this training."""

    @property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.store, self.key.fingerprint)
