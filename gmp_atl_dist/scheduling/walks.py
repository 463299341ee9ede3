"""Runs of the method in lanes: one per fold, and one for the report of each run.

What all folds share (the corpus and the backbone) is made first, in the main thread. After that every stage
of every fold has a fingerprint, so lanes that need the same stage share it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from gmp_atl_dist import pipeline, stopping
from gmp_atl_dist.config import RunConfig, digest
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.scheduling.demands import (
    Held,
    demands_of_stage,
    held_by,
    section_of,
    with_workers,
)
from gmp_atl_dist.scheduling.lanes import Lane, Lanes, NotRunError
from gmp_atl_dist.scheduling.room import Grant
from gmp_atl_dist.stages.backbone import Backbone
from gmp_atl_dist.stages.base import (
    Context,
    Handle,
    Stage,
    run_and_seal,
    told_of_other_inputs,
)
from gmp_atl_dist.stages.before_fitting import check_before_fitting
from gmp_atl_dist.stages.planned_folds import cost_warning, folds_of_corpus
from gmp_atl_dist.stages.report import Report
from gmp_atl_dist.stages.trained import TrainedStage
from gmp_atl_dist.store.artifact import Artifact, find_artifact
from gmp_atl_dist.tags import Tags


class RunObserver(Protocol):
    """Is told what a run does. Each stage is found, or started and done; one call at a time.

    ``held`` is what the workers of a stage hold while it runs.

    Several stages may be under way. An error or a stop leaves a stage that was started without an end.
    """

    def stage_found(self, stage: Stage, artifact: Artifact) -> None: ...

    def stage_started(self, stage: Stage, held: Held) -> None: ...

    def stage_done(self, stage: Stage, artifact: Artifact) -> None: ...


class _EndOfWalk(Exception):
    """The rest of the walk is none of this lane's business."""


@dataclass
class MethodRun:
    """One configuration that is run: the folds side by side, then the report."""

    config: RunConfig
    context: Context
    observers: Sequence[RunObserver] = ()
    name: str = ""
    """Tells runs of one sweep apart; empty for a run alone."""
    folds: tuple[Fold, ...] = ()
    shared: dict[str, Artifact] = field(default_factory=dict)
    """What all folds share, by label. Their keys would list the files outside the store again."""
    report: Artifact | None = None
    last_tags: dict[str, Tags] = field(default_factory=dict)
    """The tags of the stage that each lane reached last."""
    _telling: threading.RLock = field(default_factory=threading.RLock)

    def found(self, stage: Stage, artifact: Artifact) -> None:
        with self._telling:
            for observer in self.observers:
                observer.stage_found(stage, artifact)

    def make(self, stage: Stage, context: Context, grant: Grant | None = None) -> Artifact:
        """Run a stage, and tell observers. ``grant`` is the room that it was given."""
        demands = demands_of_stage(stage, context.settings) if grant is None else grant.demands
        held = held_by(demands, None if grant is None else grant.workers)
        reporter = context.reporter
        reporter.line(f"{stage.label}: running, {stage.key.fingerprint[:12]}")
        with self._telling:
            for observer in self.observers:
                observer.stage_started(stage, held)
        started_s = time.monotonic()
        artifact = run_and_seal(stage, context)
        reporter.line(f"{stage.label}: done in {time.monotonic() - started_s:.1f} s")
        with self._telling:
            for observer in self.observers:
                observer.stage_done(stage, artifact)
        return artifact

    def look_up(self, stage: Stage) -> Artifact | None:
        """The artefact of a stage that is done; says so, and tells observers."""
        artifact = find_artifact(self.context.store, stage.key)
        if artifact is not None:
            short = stage.key.fingerprint[:12]
            self.context.reporter.line(f"{stage.label}: done before, {short}")
            told_of_other_inputs(stage, artifact, self.context)
            self.found(stage, artifact)
        return artifact


def prepare(run: MethodRun, made: dict[str, Artifact] | None = None) -> None:
    """Make what all folds share, and plan the folds. In the main thread, one stage after the other.

    ``made`` holds what other runs of the same process have made of the same recordings and models.

    Raises:
        GmpAtlError: of the stages, or ``[folds]`` does not fit the corpus.
    """
    known = {} if made is None else made
    backbones: list[Artifact] = []

    def ensure(stage: Stage) -> Handle:
        stopping.check()
        # Whether genders are needed decides what the adapter refuses.
        settings = [stage.label, dict(stage.settings()), run.config.needs_gender]
        settings += [handle.identity for handle in stage.inputs().values()]
        name = digest(settings)
        with run.context.reporter.tagged(run.context.tags(stage)):
            artifact = known.get(name)
            if artifact is not None:
                run.found(stage, artifact)
            else:
                artifact = run.look_up(stage) or run.make(stage, run.context)
        known[name] = run.shared[stage.label] = artifact
        if isinstance(stage, Backbone):
            backbones.append(artifact)
        stopping.check()
        return artifact

    def planned(config: RunConfig, corpus: Artifact) -> Sequence[Fold]:
        run.folds = told_folds(run.context, config, corpus, backbones[-1])
        raise _EndOfWalk

    with suppress(_EndOfWalk):
        pipeline.method(run.config, run.context.source, ensure, planned)


def told_folds(
    context: Context, config: RunConfig, corpus: Artifact, backbone: Artifact | None
) -> tuple[Fold, ...]:
    """The folds, checked, after saying what one should know about them.

    ``backbone`` is None where its stage has not run yet; then it is not checked against the folds.

    Raises:
        GmpAtlError: ``[folds]`` does not fit the corpus, or the start model or a codebook knows speech that a
            fold tests on.
    """
    folds = folds_of_corpus(config, corpus)
    for fold in folds:
        for note in fold.notes:
            context.reporter.line(f"{fold.name}: {note}")
    cost = cost_warning(config, len(folds))
    if cost is not None:
        context.reporter.line(f"folds: {cost}")
    if backbone is not None:
        check_before_fitting(config, corpus, backbone, folds, context.reporter.warning)
        pipeline.check_codebooks(config, corpus, backbone, folds)
    return folds


def lanes_of(run: MethodRun, lanes: Lanes) -> tuple[list[Lane], Lane]:
    """A lane per fold, and that of the report. ``run`` must have been prepared."""

    def of_fold(fold: Fold) -> Lane:
        return Lane(_named(run, fold.name), lambda lane: _walk(lanes, lane, run, (fold,)))

    cells = [of_fold(fold) for fold in run.folds]

    def report(lane: Lane) -> None:
        _walk(lanes, lane, run, run.folds, report=True)

    return cells, Lane(_named(run, "report"), report, after=tuple(cells))


def _named(run: MethodRun, what: str) -> str:
    return f"{run.name} {what}".lstrip()


def _walk(
    lanes: Lanes, lane: Lane, run: MethodRun, folds: Sequence[Fold], *, report: bool = False
) -> None:
    """Everything of one fold up to its evaluation; or, with ``report``, of all of them and the report."""

    def ensure(stage: Stage) -> Handle:
        if stage.label in run.shared:
            return run.shared[stage.label]
        if isinstance(stage, Report) and not report:
            raise _EndOfWalk
        tags = run.last_tags[lane.name] = run.context.tags(stage)
        with run.context.reporter.tagged(tags):
            artifact, mine = lanes.once(
                lane, stage.key, stage.label, lambda: _look_up_or_run(lanes, lane, run, stage)
            )
            # The report's lane goes once more over what its folds' lanes have told already.
            if not mine and not report:
                run.found(stage, artifact)
        if isinstance(stage, Report):
            run.report = artifact
        return artifact

    with suppress(_EndOfWalk):
        pipeline.method(run.config, run.context.source, ensure, lambda *_: folds)


def _look_up_or_run(lanes: Lanes, lane: Lane, run: MethodRun, stage: Stage) -> Artifact:
    found = run.look_up(stage)
    if found is not None:
        return found
    settings = run.context.settings

    def work(grant: Grant | None) -> Artifact:
        return run.make(stage, _within(run.context, stage, grant), grant)

    return lanes.with_room(
        lane,
        demands_of_stage(stage, settings),
        work,
        saves=isinstance(stage, TrainedStage),
        alone_with=_alone_with(stage),
    )


def _within(context: Context, stage: Stage, grant: Grant | None) -> Context:
    """A context in which the stage asks for no more workers than it was given room for."""
    section = section_of(stage)
    if grant is None or section is None:
        return context
    settings = with_workers(context.settings, section, grant.workers[0])
    return replace(context, settings=settings)


def _alone_with(stage: Stage) -> str:
    """Fits of the same features share the codebooks of single scales, so the later one finds them."""
    features = getattr(stage, "features", None)
    return f"cluster {features.identity}" if stage.kind == "cluster" and features else ""


@contextmanager
def raising(run: MethodRun, lanes: Sequence[Lane]) -> Iterator[None]:
    """After the block, raise the first error of ``lanes``, with the tags of its stage."""
    yield
    failed = [lane for lane in lanes if lane.failed]
    first = next(
        (x for x in failed if not isinstance(x.error, NotRunError)), next(iter(failed), None)
    )
    if first is not None and first.error is not None:
        with run.context.reporter.tagged(run.last_tags.get(first.name, Tags())):
            raise first.error


def run_side_by_side(run: MethodRun) -> Artifact:
    """All folds of one run, as the cluster has room, then its report.

    An error ends the run: stages that are under way reach their ends, and no other one is started.

    Raises:
        GmpAtlError: whatever stopped the run.
    """
    lanes = Lanes(run.context.connection.open, fail_fast=True)
    cells, report = lanes_of(run, lanes)
    every = [*cells, report]
    with raising(run, every):
        lanes.run(every)
    assert run.report is not None
    return run.report
