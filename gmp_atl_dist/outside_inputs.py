"""Finds the artefacts of ``ingest`` and ``backbone`` without the recordings and the model they were made of.

The fingerprints of these two stages follow the files outside the store. So a corpus that was copied,
moved or deleted would make everything behind it unreachable. What is only looked at, and not computed, is
found by the record of the run, or by an artefact that was made with the same configuration.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gmp_atl_dist.errors import ArtifactError, GmpAtlError
from gmp_atl_dist.stages.base import Stage
from gmp_atl_dist.store.artifact import Artifact, find_artifact, list_artifacts
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.runs import RunRecord

_OF_FILES = "listing"
"""The part of these stages' science that follows the files."""


@dataclass
class OutsideInputs:
    """The keys of stages by a run's record, by the files, or by an artefact of the same configuration.

    ``notes`` says what was not found by the files.
    """

    store: Store
    record: RunRecord | None = None
    notes: list[str] = field(default_factory=list)
    _keys: dict[str, ArtifactKey] = field(default_factory=dict)

    def __call__(self, stage: Stage) -> ArtifactKey:
        """The key of ``stage``.

        Raises:
            GmpAtlError: the files cannot be read, and the store does not tell what was made of them.
        """
        if stage.identity_is_fingerprint:
            return stage.key
        if stage.label not in self._keys:
            self._keys[stage.label] = self._find(stage)
        return self._keys[stage.label]

    def _find(self, stage: Stage) -> ArtifactKey:
        known = None if self.record is None else self.record.stage(stage.label)
        recorded = None if known is None else ArtifactKey(known.kind, known.fingerprint)
        if recorded is not None and find_artifact(self.store, recorded) is not None:
            return recorded
        if recorded is not None and self.store.has_any(recorded.prefix):
            return recorded
        try:
            current, why = stage.key, None
        except GmpAtlError as e:
            current, why = None, e
        if current is not None and find_artifact(self.store, current) is not None:
            return current
        alike = self._alike(stage)
        if len(alike) == 1:
            self._note(stage, alike[0], why)
            return alike[0].key
        if current is not None:
            return current
        raise self._unreachable(stage, alike, why) from why

    def _alike(self, stage: Stage) -> list[Artifact]:
        """Sealed artefacts of the same kind, version and configuration, of whatever files."""
        found: list[Artifact] = []
        for key in list_artifacts(self.store):
            if key.kind != stage.kind:
                continue
            artifact = find_artifact(self.store, key)
            if artifact is not None and _is_alike(stage, artifact):
                found.append(artifact)
        return found

    def _note(self, stage: Stage, artifact: Artifact, why: GmpAtlError | None) -> None:
        reason = (
            "the files that it was made of have changed or were copied; gmp-atl run would read them again"
            if why is None
            else f"the files that it was made of cannot be read ({_first_line(why)})"
        )
        self.notes.append(
            f"{stage.label} {artifact.key.fingerprint[:12]} is the only one of this configuration; "
            f"{reason}"
        )

    def _unreachable(
        self, stage: Stage, alike: list[Artifact], why: GmpAtlError | None
    ) -> GmpAtlError:
        kind = type(why) if why is not None else ArtifactError
        made = (
            f"{self.store.uri} has no {stage.kind} artefact of this configuration"
            if not alike
            else f"{self.store.uri} has {len(alike)} {stage.kind} artefacts of this configuration "
            f"({', '.join(a.key.fingerprint[:12] for a in alike)}), and which one is meant is not known: "
            f"name the run, see gmp-atl runs"
        )
        return kind(f"{why}\n{made}" if why is not None else made)


def _is_alike(stage: Stage, artifact: Artifact) -> bool:
    """Whether the artefact has the stage's science, apart from what follows the files."""
    science = {k: v for k, v in artifact.manifest.science.items() if k != _OF_FILES}
    return artifact.manifest.version == stage.version and science == stage.settings()


def _first_line(error: GmpAtlError) -> str:
    return error.message.partition("\n")[0]
