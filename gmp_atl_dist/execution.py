"""Walks over the method: run what is missing, look at what is there, or list the stages in order.

``pipeline.method`` is the only place that knows the stages. Each function here hands it another
``ensure``, which decides what happens at each stage.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, NamedTuple, TypeAlias

from gmp_atl_dist import pipeline, stopping
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.errors import ArtifactError, ConfigError
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.models.head_registry import check_head
from gmp_atl_dist.outside_inputs import OutsideInputs
from gmp_atl_dist.runtime import RayConnection
from gmp_atl_dist.scheduling.demands import demands_of_stage, held_by
from gmp_atl_dist.scheduling.preloaded import preloaded
from gmp_atl_dist.scheduling.walks import (
    MethodRun,
    RunObserver,
    prepare,
    run_side_by_side,
    told_folds,
)
from gmp_atl_dist.stages.backbone import Backbone
from gmp_atl_dist.stages.base import (
    Context,
    Handle,
    Pending,
    Stage,
    run_and_seal,
    sealed,
    told_of_other_inputs,
)
from gmp_atl_dist.stages.fold_artifacts import FoldArtifacts
from gmp_atl_dist.stages.gender import PredictGender
from gmp_atl_dist.stages.report import Report
from gmp_atl_dist.store.artifact import (
    Artifact,
    ArtifactKey,
    ArtifactWriter,
    Manifest,
    find_artifact,
)
from gmp_atl_dist.store.checkpoints import ROOT as CHECKPOINTS
from gmp_atl_dist.store.checkpoints import Checkpoints
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.layout import check_layout, claim_layout
from gmp_atl_dist.store.progress import ProgressSnapshot, read_progress
from gmp_atl_dist.store.run_state import stage_state
from gmp_atl_dist.store.runs import StageRun

EVERY_STAGE = RunConfig.model_validate(
    {"model": {"source": "random:base"}, "pretrain": {"iterations": 2}}
)
"""A configuration that has all stages."""
SEVERAL_CORPORA = RunConfig.model_validate(
    {
        "corpus": {"emotions": ["a class"]},
        "corpora": [{"name": "NAME"}],
        "runtime": {"corpora": {"NAME": "a folder"}},
    }
)
"""A configuration of several corpora, with the stages that only such a one has."""
PREDICTED_GENDER = RunConfig.model_validate(
    {
        "corpus": {"emotions": ["a class"]},
        "corpora": [{"name": "NAME"}, {"name": "MORE", "role": "unlabelled"}],
        "cluster": {"gender": "by_gender"},
        "runtime": {"corpora": {"NAME": "a folder", "MORE": "another folder"}},
    }
)
"""A configuration that predicts the gender of unlabelled speech."""
_ANY_FOLD = Fold("fold1", train_speakers=("train",), test_speakers=("test",))


def planned_stages(config: RunConfig) -> tuple[Stage, ...]:
    """The stages of a configuration in the order in which they run, from the method itself.

    Nothing is read: every artefact is pending, and one fold stands for all.
    """
    stages: dict[str, Stage] = {}

    def note(stage: Stage) -> Handle:
        stages.setdefault(stage.name, stage)
        return Pending(stage) if stage.identity_is_fingerprint else _placeholder(stage)

    pipeline.method(config, Store.open("."), note, lambda *_: (_ANY_FOLD,))
    return tuple(stages.values())


def stage_names(config: RunConfig) -> tuple[str, ...]:
    """The names of :func:`planned_stages`."""
    return tuple(stage.name for stage in planned_stages(config))


def stages_of_all_configurations() -> tuple[Stage, ...]:
    """Each stage that some configuration has, in the order in which they run. For the documentation."""
    first, *others = planned_stages(EVERY_STAGE)
    known = {stage.name for stage in (first, *others)}
    of_several = [s for s in planned_stages(SEVERAL_CORPORA) if s.name not in known]
    stages = [first, *of_several, *others]
    for before, stage in pairwise(planned_stages(PREDICTED_GENDER)):
        if isinstance(stage, PredictGender):
            stages.insert([s.name for s in stages].index(before.name) + 1, stage)
    return tuple(stages)


def _placeholder(stage: Stage) -> Artifact:
    """An artefact of nothing, for walks that only look at the order of the stages."""
    manifest = Manifest(
        kind=stage.kind,
        version=stage.version,
        fingerprint="",
        identity="",
        science={},
        inputs={},
        receipts=(),
        notes={"source": "", "num_layers": str(sys.maxsize)},
    )
    return Artifact(Store.open("."), ArtifactKey(stage.kind, ""), manifest)


def all_stage_names() -> tuple[str, ...]:
    """The stages of all configurations in order, those of pretraining included."""
    return stage_names(EVERY_STAGE)


@contextmanager
def open_context(config: RunConfig, reporter: Reporter | None = None) -> Iterator[Context]:
    """Everything that a run needs besides its science: stores, workers, and where lines go.

    The connection to Ray is made when the first stage needs it, and closed at the end of the block.

    Raises:
        ArtifactError: the root or the corpus is no usable folder or URI.
    """
    settings = config.runtime
    lines = reporter or Reporter(log_format=settings.log_format, run=settings.run_name)
    with RayConnection(settings, preload=preloaded(settings)) as connection:
        source = Store.open(settings.corpus)
        yield Context(Store.open(settings.root), source, settings, lines, connection)


def run_pipeline(
    config: RunConfig, context: Context, observers: Sequence[RunObserver] = ()
) -> Artifact:
    """Run every stage that has not run yet, and return the artefact of the report.

    Several folds run side by side as far as the cluster has room; see ``scheduling/lanes.py``.

    Raises:
        ConfigError: a pooling or loss of ``finetune`` is not known; nothing was started.
        GmpAtlError: whatever stopped the run. Finished stages and parts stay finished.
    """
    check_head(config.finetune)
    context.store.check_writable()
    claim_layout(context.store)
    run = MethodRun(config, context, tuple(observers))
    prepare(run)
    if len(run.folds) > 1:
        return run_side_by_side(run)
    runner = _Runner(context, tuple(observers))

    def ensure(stage: Stage) -> Handle:
        return run.shared.get(stage.label) or runner(stage)

    return sealed(pipeline.method(config, context.source, ensure, lambda *_: run.folds))


def run_stage(
    config: RunConfig, context: Context, name: str, observers: Sequence[RunObserver] = ()
) -> None:
    """Run the stage ``name`` for every fold. The stages before it must be done.

    Raises:
        ConfigError: there is no such stage, or not in this configuration; or a pooling or loss of
            ``finetune`` is not known.
        ArtifactError: a stage before it is not done; the message names it.
    """
    order = stage_names(config)
    if name not in order:
        known = all_stage_names()
        if config.corpora and name == "ingest":
            raise ConfigError(
                f"stage 'ingest' is one stage per source here: {', '.join(order[: len(config.corpora)])}"
            )
        if name in stage_names(SEVERAL_CORPORA) and name not in known:
            raise ConfigError(
                f"stage {name!r} is not a part of this experiment: it has one corpus, and no [[corpora]]"
            )
        if name == PredictGender.kind:
            raise ConfigError(
                f"stage {name!r} is not a part of this experiment: it predicts the gender of unlabelled "
                f"speech, for cluster.gender = 'by_gender' or cluster.balance = 'gender'"
            )
        if name not in known:
            raise ConfigError(f"stage {name!r} is not known; known: {', '.join(known)}")
        if name in stage_names(RunConfig()):
            raise ConfigError(
                f"stage {name!r} is not a part of this experiment: finetune.start = "
                f"{config.finetune.start!r} and extract.of = {config.extract.of!r} do without it"
            )
        raise ConfigError(
            f"stage {name!r} is not a part of this experiment: pretrain.iterations = "
            f"{config.pretrain.iterations}; raise it"
        )
    check_head(config.finetune)
    context.store.check_writable()
    claim_layout(context.store)
    with suppress(_EndOfWalk):
        runner = _Runner(context, tuple(observers), name, order)
        pipeline.method(config, context.source, runner, runner.folds)


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


@dataclass
class _Runner:
    """Skips what is sealed and runs the rest. With ``only``, runs that stage and no other."""

    context: Context
    observers: tuple[RunObserver, ...] = ()
    only: str | None = None
    order: tuple[str, ...] = ()
    _backbone: Artifact | None = None

    def __call__(self, stage: Stage) -> Handle:
        stopping.check()
        with self.context.reporter.tagged(self.context.tags(stage)):
            artifact = self._ensure(stage)
        stopping.check()
        if isinstance(stage, Backbone):
            self._backbone = sealed(artifact)
        return artifact

    def folds(self, config: RunConfig, corpus: Artifact) -> tuple[Fold, ...]:
        """The folds, checked, after saying what one should know about them."""
        return told_folds(self.context, config, corpus, self._backbone)

    def _ensure(self, stage: Stage) -> Handle:
        key, reporter = stage.key, self.context.reporter
        artifact = find_artifact(self.context.store, key)
        if artifact is not None:
            reporter.line(f"{stage.label}: done before, {key.fingerprint[:12]}")
            told_of_other_inputs(stage, artifact, self.context)
            for observer in self.observers:
                observer.stage_found(stage, artifact)
            return artifact
        if self.only is not None and stage.name != self.only:
            return self._left_out(stage, self.only)
        reporter.line(f"{stage.label}: running, {key.fingerprint[:12]}")
        for observer in self.observers:
            observer.stage_started(stage, held_by(demands_of_stage(stage, self.context.settings)))
        started_s = time.monotonic()
        artifact = run_and_seal(stage, self.context)
        reporter.line(f"{stage.label}: done in {time.monotonic() - started_s:.1f} s")
        for observer in self.observers:
            observer.stage_done(stage, artifact)
        return artifact

    def _left_out(self, stage: Stage, only: str) -> Handle:
        """A stage that was not asked for and is not done: fine after ``only``, an error before it."""
        if self.order.index(stage.name) < self.order.index(only):
            raise ArtifactError(
                f"{stage.label} is not done, and {only} needs it; run gmp-atl stage "
                f"{stage.name} with the same configuration first"
            )
        if not stage.identity_is_fingerprint:
            raise _EndOfWalk
        return Pending(stage)


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
