"""Looks at what is there: the state of every stage, and the artefacts of one fold. Runs nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from gmp_atl_dist import pipeline
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.errors import ArtifactError, ConfigError
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.outside_inputs import OutsideInputs
from gmp_atl_dist.stages.base import Context, Handle, Pending, Stage
from gmp_atl_dist.stages.fold_artifacts import FoldArtifacts
from gmp_atl_dist.stages.report import Report
from gmp_atl_dist.store.artifact import Artifact, find_artifact
from gmp_atl_dist.store.checkpoints import ROOT as CHECKPOINTS
from gmp_atl_dist.store.checkpoints import Checkpoints
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.layout import check_layout
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.progress import ProgressSnapshot, read_progress
from gmp_atl_dist.store.run_state import stage_state
from gmp_atl_dist.store.runs import StageRun
from gmp_atl_dist.store.writer import ArtifactWriter


def survey(
    config: RunConfig, context: Context, inputs: OutsideInputs | None = None
) -> list[StageStatus]:
    """The state of every stage. Runs nothing.

    ``inputs`` finds the artefacts of recordings and of the stock model, and knows the run's record. The
    default knows none. Its ``notes`` then say what was not found by its files.

    Raises:
        GmpAtlError: the corpus or the stock model cannot be read, and the store does not tell what was
            made of them.
    """
    check_layout(context.store)
    looker = _Looker(context, inputs or OutsideInputs(context.store))
    with suppress(_EndOfWalk):
        pipeline.method(config, context.source, looker)
    return looker.statuses


class FoundFold(NamedTuple):
    """The artefacts that one fold has so far, with those that all folds share."""

    corpus: Artifact
    backbone: Artifact
    artifacts: FoldArtifacts


def find_fold(
    config: RunConfig,
    store: Store,
    source: Store,
    number: int | None,
    inputs: OutsideInputs | None = None,
) -> FoundFold:
    """What there is of fold ``number``, counted from 1. Runs nothing.

    Args:
        number: None: the only fold of the configuration.
        inputs: as of :func:`survey`.

    Raises:
        ConfigError: there is no such fold, or there are several and ``number`` is None.
        ArtifactError: the corpus or the backbone is not done.
    """
    check_layout(store)
    find_key = inputs or OutsideInputs(store)
    reports: list[Report] = []

    def look(stage: Stage) -> Handle:
        if isinstance(stage, Report):
            reports.append(stage)
        artifact = find_artifact(store, find_key(stage))
        if artifact is None and not stage.identity_is_fingerprint:
            raise ArtifactError(
                f"{stage.label} is not done below {store.uri} for this configuration; run "
                f"gmp-atl run with it first"
            )
        return artifact or Pending(stage)

    def only(config: RunConfig, corpus: Artifact) -> tuple[Fold, ...]:
        if number is None:
            return _only_fold(pipeline.configured_folds(config, corpus))
        every_fold = config.folds.model_copy(update={"run": ()})
        folds = pipeline.configured_folds(config.model_copy(update={"folds": every_fold}), corpus)
        if not 1 <= number <= len(folds):
            raise ConfigError(
                f"--fold {number}: there is no such fold; this corpus has 1 to {len(folds)}"
            )
        return (folds[number - 1],)

    pipeline.method(config, source, look, only)
    (report,) = reports
    (artifacts,) = report.folds
    return FoundFold(report.corpus, report.backbone, artifacts)


def _only_fold(folds: Sequence[Fold]) -> tuple[Fold, ...]:
    if len(folds) != 1:
        names = ", ".join(fold.name.removeprefix("fold") for fold in folds)
        raise ConfigError(f"this experiment has several folds; give --fold, one of {names}")
    return tuple(folds)


class _EndOfWalk(Exception):
    """The walk cannot continue, or need not."""


StageState: TypeAlias = Literal["waiting", "running", "stopped", "failed", "killed", "done"]


@dataclass(frozen=True)
class StageStatus:
    """One line of ``gmp-atl status``.

    ``stopped`` is a stage that has begun and that nobody runs now. Only a run's record tells whether it was
    stopped, has failed or was killed; the latter two have their own states.
    """

    label: str
    fingerprint: str
    state: StageState
    detail: str = ""
    started_s: float | None = None
    """Unix time; None if it is not known."""
    duration_s: float | None = None
    """Of the attempt that reached the stage; None while it runs, or if it is not known."""
    ends_s: float | None = None
    """Expected end in Unix time, of a stage that runs."""


@dataclass
class _Looker:
    """Notes the state of each stage."""

    context: Context
    inputs: OutsideInputs
    statuses: list[StageStatus] = field(default_factory=list)

    def __call__(self, stage: Stage) -> Handle:
        store, key = self.context.store, self.inputs(stage)
        artifact = find_artifact(store, key)
        if artifact is not None:
            detail = _size(sum(r.bytes for r in artifact.manifest.receipts))
            self._note(stage, key, "done", detail)
            return artifact
        parts = ArtifactWriter(store, key).done()
        progress = read_progress(store, key)
        state = self._state(stage, key, progress, is_begun=bool(parts))
        detail = f"{len(parts)} parts" if parts else ""
        ends_s = None
        if progress is not None:
            if state == "running" and progress.ends_in_s is not None:
                ends_s = (progress.written_s or time.time()) + progress.ends_in_s
            # Nobody works towards the end that was expected when it was written.
            detail = progress.model_copy(update={"ends_in_s": None}).describe(time.time())
        if state != "running" and (step := self._checkpoint(key)):
            detail = ", ".join(filter(None, [detail, f"checkpoint at update {step}"]))
        self._note(stage, key, state, detail, ends_s)
        if not stage.identity_is_fingerprint:
            raise _EndOfWalk
        return Pending(stage)

    def _checkpoint(self, key: ArtifactKey) -> int:
        """The update from which a training continues; 0 without a checkpoint."""
        sealed = Checkpoints(self.context.store, key.fingerprint).sealed()
        return max((record.step for record in sealed), default=0)

    def _state(
        self, stage: Stage, key: ArtifactKey, progress: ProgressSnapshot | None, *, is_begun: bool
    ) -> StageState:
        """The state of a stage that is not sealed: by the record, or by what lies in the store."""
        record, known = self.inputs.record, self._recorded(stage, key)
        if record is not None and known is not None:
            state = stage_state(record, known)
            if state != "done":
                return state
        if progress is not None and progress.is_fresh(time.time()):
            return "running"
        if progress is not None or is_begun:
            return "stopped"
        has_checkpoint = self.context.store.has_any(f"{CHECKPOINTS}/{key.fingerprint}")
        return "stopped" if has_checkpoint else "waiting"

    def _recorded(self, stage: Stage, key: ArtifactKey) -> StageRun | None:
        record = self.inputs.record
        known = None if record is None else record.stage(stage.label)
        return known if known is not None and known.fingerprint == key.fingerprint else None

    def _note(
        self,
        stage: Stage,
        key: ArtifactKey,
        state: StageState,
        detail: str,
        ends_s: float | None = None,
    ) -> None:
        known = self._recorded(stage, key)
        was_found = known is not None and known.state == "found"
        times = {} if known is None or was_found else {"started_s": known.started_s}
        times |= {} if known is None or was_found else {"duration_s": known.total_s}
        self.statuses.append(
            StageStatus(stage.label, key.fingerprint, state, detail, ends_s=ends_s, **times)
        )


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 1e5 else f"{num_bytes / 1e3:.1f} kB"
