"""The artefacts of one fold, by the names of the stages that made them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gmp_atl_dist.fold import Fold
from gmp_atl_dist.stages.base import Handle, Stage, sealed
from gmp_atl_dist.store.artifact import Artifact


@dataclass(frozen=True)
class FoldArtifacts:
    """What the stages of one fold made, in the order of the method.

    ``pipeline.one_fold`` fills it while it walks, so a new stage is known to the report, to exports and
    to model cards without a line of their own.
    """

    fold: Fold
    handles: dict[str, Handle] = field(default_factory=dict)

    def recorded(self, ensure: Callable[[Stage], Handle]) -> Callable[[Stage], Handle]:
        """``ensure``, which also notes each artefact under its stage's name."""

        def note(stage: Stage) -> Handle:
            handle = ensure(stage)
            self.handles[stage.name] = handle
            return handle

        return note

    def artifact(self, stage: str) -> Artifact:
        """The sealed artefact of the stage named ``stage``.

        Raises:
            ArtifactError: the stage has not run yet.
        """
        return sealed(self.handles[stage])

    def trained(self) -> Mapping[str, Artifact]:
        """Artefacts with learning curves: those of the trained stages."""
        artifacts = {name: sealed(handle) for name, handle in self.handles.items()}
        return {n: a for n, a in artifacts.items() if "parts/curves.parquet" in a.receipts}
