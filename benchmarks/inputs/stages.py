"""Single stages run and sealed without the pipeline, and the artefacts that they leave."""

from __future__ import annotations

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.stages.base import Context, Stage, run_and_seal
from gmp_atl_dist.store.artifact import Artifact, find_artifact, list_artifacts
from gmp_atl_dist.store.filesystem import Store


def finish(stage: Stage, context: Context) -> Artifact:
    """The artefact of a stage, which is run unless it is sealed already."""
    return find_artifact(context.store, stage.key) or run_and_seal(stage, context)


def sealed_of_kind(store: Store, kind: str) -> Artifact:
    """The first sealed artefact of a kind.

    Raises:
        ArtifactError: there is none.
    """
    keys = (key for key in list_artifacts(store) if key.kind == kind)
    artifacts = (find_artifact(store, key) for key in keys)
    artifact = next((a for a in artifacts if a is not None), None)
    if artifact is None:
        raise ArtifactError(f"{store.uri} holds no artefact of kind {kind}; prepare it first")
    return artifact
