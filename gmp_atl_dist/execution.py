"""Runs the method: every stage that is not done, or one of them.

``pipeline.method`` is the only place that knows the stages. It is handed an ``ensure``, which decides what
happens at each stage.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from gmp_atl_dist import pipeline, stopping
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.errors import ArtifactError, ConfigError
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.models.head_registry import check_head
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
from gmp_atl_dist.stage_order import SEVERAL_CORPORA, all_stage_names, stage_names
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
from gmp_atl_dist.stages.gender import PredictGender
from gmp_atl_dist.store.artifact import Artifact, find_artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.layout import claim_layout


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
