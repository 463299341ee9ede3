"""What a stage is: a pure function from sealed artefacts to one sealed artefact."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, TypeAlias

from gmp_atl_dist import runtime
from gmp_atl_dist.config import Json, RuntimeConfig, canonical_json
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.records import Problem
from gmp_atl_dist.store.artifact import MADE_FROM_NOTE, Artifact, find_artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.writer import ArtifactWriter
from gmp_atl_dist.tags import Tags


@dataclass(frozen=True)
class Context:
    """Where a stage runs. Nothing in here changes what it produces."""

    store: Store
    source: Store
    settings: RuntimeConfig
    reporter: Reporter
    connection: runtime.RayConnection

    def tags(self, stage: Stage) -> Tags:
        """The tags of metrics and log lines of ``stage``."""
        return Tags(self.settings.run_name, stage.name, stage.fold_name)


@dataclass(frozen=True)
class Pending:
    """The artefact of a stage that has not run yet.

    Its identity is known in advance, because it is the stage's fingerprint.
    """

    stage: Stage

    @property
    def kind(self) -> str:
        return self.stage.kind

    @property
    def key(self) -> ArtifactKey:
        return self.stage.key

    @property
    def identity(self) -> str:
        return self.key.fingerprint


Handle: TypeAlias = Artifact | Pending
_computing: defaultdict[ArtifactKey, threading.Lock] = defaultdict(threading.Lock)


@dataclass(frozen=True)
class Seal:
    """What a stage reports when it has finished; it becomes part of the manifest."""

    identity: str | None = None
    problems: Sequence[Problem] = ()
    notes: Mapping[str, str] = field(default_factory=dict)


class Stage(ABC):
    """One stage with its inputs and its slice of the configuration.

    The fingerprint follows from ``kind``, ``version``, :meth:`science` and the identities of
    :meth:`inputs`, and from nothing else. Raise ``version`` when the same inputs give other bytes.
    """

    kind: ClassVar[str]
    version: ClassVar[int] = 1
    identity_is_fingerprint: ClassVar[bool] = True
    """False where inputs lie outside the store. The identity is then known only after the run."""
    iteration: int = 0
    """The iteration of pretraining, counted from 1; 0 outside it. Part of the name only."""

    @abstractmethod
    def science(self) -> dict[str, Json]:
        """The part of the configuration that determines the result; see ``config/hashing.py``."""

    def settings(self) -> dict[str, Json]:
        """:meth:`science` without what follows files outside the store."""
        return self.science()

    @abstractmethod
    def inputs(self) -> Mapping[str, Handle]:
        """The artefacts that it reads."""

    @abstractmethod
    def run(self, context: Context, out: ArtifactWriter) -> Seal:
        """Write parts and files. What has a receipt already is not computed again."""

    @property
    def name(self) -> str:
        """The name for ``gmp-atl stage``. Stages of pretraining have their iteration behind it."""
        return f"{self.kind}{self.iteration or ''}"

    @property
    def fold_name(self) -> str:
        """The fold that it belongs to; empty for a stage that all folds share."""
        return ""

    @property
    def label(self) -> str:
        """Name and fold, as people see it."""
        return f"{self.name} {self.fold_name}".rstrip()

    @cached_property
    def key(self) -> ArtifactKey:
        identities = {name: handle.identity for name, handle in self.inputs().items()}
        return ArtifactKey.of(self.kind, self.version, self.science(), identities)


def sealed(handle: Handle) -> Artifact:
    """The artefact behind a handle.

    Raises:
        ArtifactError: its stage has not run yet.
    """
    if isinstance(handle, Pending):
        raise ArtifactError(
            f"{handle.key.kind} {handle.key.fingerprint[:12]} does not exist yet; run the stages "
            f"before this one first"
        )
    return handle


def run_and_seal(stage: Stage, context: Context) -> Artifact:
    """Run ``stage`` and write its manifest. After that, its artefact exists."""
    out = ArtifactWriter(context.store, stage.key)
    contents = _contents(stage)
    seal = stage.run(context, out)
    made_from = {MADE_FROM_NOTE: canonical_json({**contents})} if contents else {}
    return out.seal(
        version=stage.version,
        science=stage.science(),
        inputs={name: handle.identity for name, handle in stage.inputs().items()},
        identity=seal.identity,
        problems=seal.problems,
        notes={**seal.notes, **made_from},
    )


def _contents(stage: Stage) -> dict[str, str]:
    """The content of each input that a stage of the same identity may make with other bytes."""
    return {
        name: handle.content
        for name, handle in stage.inputs().items()
        # The others have an identity that follows from their content.
        if isinstance(handle, Artifact) and handle.identity == handle.key.fingerprint
    }


def other_inputs(stage: Stage, artifact: Artifact) -> tuple[str, ...]:
    """The inputs of a stage whose bytes are no longer those that its artefact was made from.

    They were made again since, and the bytes of a model that was trained on GPUs differ each time.
    """
    now = _contents(stage)
    was = artifact.made_from
    return tuple(name for name in was if name in now and was[name] != now[name])


def told_of_other_inputs(stage: Stage, artifact: Artifact, context: Context) -> None:
    """Warn of an artefact that is done and was made from other bytes than its inputs have now."""
    if names := other_inputs(stage, artifact):
        context.reporter.warning(
            f"{stage.label} {artifact.key.fingerprint[:12]} was made from an earlier {', '.join(names)}, "
            f"which was made again since with other bytes; to make it again too: gmp-atl repair --root "
            f"{context.store.uri}"
        )


def find_or_run(stage: Stage, context: Context) -> Artifact:
    """The artefact of ``stage``, from the store if it is there; one line says which.

    Of several threads that need it, one runs it and the others wait.
    """
    with _computing[stage.key]:
        return _found_or_run(stage, context)


def _found_or_run(stage: Stage, context: Context) -> Artifact:
    short = stage.key.fingerprint[:12]
    artifact = find_artifact(context.store, stage.key)
    if artifact is not None:
        context.reporter.line(f"{stage.label}: done before, {short}")
        return artifact
    context.reporter.line(f"{stage.label}: running, {short}")
    started_s = time.monotonic()
    artifact = run_and_seal(stage, context)
    context.reporter.line(f"{stage.label}: done in {time.monotonic() - started_s:.1f} s")
    return artifact
