"""GMP-ATL on one page: the stages in order, what feeds what, and the loop that skips what is done.

Paper: Pan et al., *GMP-ATL: Gender-augmented Multi-scale Pseudo-label Enhanced Adaptive Transfer
Learning for Speech Emotion Recognition via HuBERT*, arXiv 2405.02151.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias

from gmp_atl_dist.config import ClusterConfig, ExtractConfig, LabelConfig, RunConfig
from gmp_atl_dist.corpora.base import read_corpus
from gmp_atl_dist.corpora.folds import plan_folds
from gmp_atl_dist.errors import ArtifactError, ConfigError
from gmp_atl_dist.records import Fold
from gmp_atl_dist.stages.backbone import Backbone, check_layers
from gmp_atl_dist.stages.base import Context, Pending, Stage, sealed
from gmp_atl_dist.stages.cluster import Cluster
from gmp_atl_dist.stages.evaluate import Evaluate
from gmp_atl_dist.stages.extract import Extract
from gmp_atl_dist.stages.finetune import Finetune, selection_side
from gmp_atl_dist.stages.ingest import Ingest
from gmp_atl_dist.stages.label import FusedLabel, Label
from gmp_atl_dist.stages.learners import Learners, plan_labels
from gmp_atl_dist.stages.mfcc import Mfcc
from gmp_atl_dist.stages.pretrain import Pretrain, Pretraining
from gmp_atl_dist.stages.progress import read_progress
from gmp_atl_dist.stages.report import FoldArtifacts, Report
from gmp_atl_dist.stages.retrain import Retrain
from gmp_atl_dist.stages.warmup import Warmup
from gmp_atl_dist.store.artifact import Artifact, ArtifactWriter, find_artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.index import one_of_each_group

Handle: TypeAlias = Artifact | Pending
Ensure: TypeAlias = Callable[[Stage], Handle]


def method(config: RunConfig, source: Store, ensure: Ensure) -> Handle:
    """The method. ``ensure`` turns a stage into its artefact, by whatever way: running it, looking."""
    listing = read_corpus(config.corpus, source)
    corpus = sealed(ensure(Ingest(config.corpus, listing)))
    backbone = sealed(ensure(Backbone(config.model)))
    check_layers(backbone, config.extract.layers)
    if config.pretrain.iterations == 2:
        check_layers(backbone, (config.pretrain.layer,), "pretrain.layer")
    folds = plan_folds(one_of_each_group(corpus), config.folds)
    results = [one_fold(config, corpus, backbone, fold, ensure) for fold in folds]
    return ensure(Report(config, corpus, backbone, tuple(results)))


def one_fold(
    config: RunConfig, corpus: Artifact, backbone: Artifact, fold: Fold, ensure: Ensure
) -> FoldArtifacts:
    """Everything that is fitted, for one held-out group: nothing here sees its labels."""
    # Transductive: pretraining, clustering and retraining hear the test speakers; the report says so.
    hears_all = config.folds.protocol != "clean"
    learners = Learners(corpus, fold, hears_all)
    pretraining = pretrain(config, backbone, learners, ensure)
    start = pretraining[-1].model if pretraining else backbone
    warmup = ensure(Warmup(config.warmup, corpus, start, fold))
    made = pseudo_labels(config, config.cluster, config.extract, warmup, learners, ensure)
    features, codebooks, labels = made
    retrained = ensure(Retrain(config.retrain, corpus, start, codebooks, labels, fold, hears_all))
    select_on = selection_side(config.finetune, config.folds)
    finetuned = ensure(Finetune(config.finetune, corpus, retrained, fold, select_on))
    predictions = ensure(Evaluate(corpus, finetuned, fold))
    return FoldArtifacts(
        fold, warmup, features, codebooks, labels, retrained, finetuned, predictions, pretraining
    )


def pretrain(
    config: RunConfig, backbone: Artifact, learners: Learners, ensure: Ensure
) -> tuple[Pretraining, ...]:
    """HuBERT from random weights, where there is no checkpoint; the last iteration's is used."""
    done: list[Pretraining] = []
    extract = config.extract.model_copy(update={"layers": (config.pretrain.layer,)})
    for number in range(1, config.pretrain.iterations + 1):
        model = done[-1].model if done else None
        clusters = config.pretrain.clusters(number)
        made = pseudo_labels(config, clusters, extract, model, learners, ensure, number)
        features, codebooks, labels = made
        training = config.pretrain.training(number)
        # From random weights each time: what goes on to the next iteration are labels.
        trained = ensure(Pretrain(training, backbone, codebooks, labels, learners, number))
        done.append(Pretraining(number, features, codebooks, labels, trained))
    return tuple(done)


def pseudo_labels(
    config: RunConfig,
    clusters: ClusterConfig,
    extract: ExtractConfig,
    model: Handle | None,
    learners: Learners,
    ensure: Ensure,
    iteration: int = 0,
) -> tuple[Handle, Handle, Handle]:
    """Features of a model, or MFCC where there is none yet; their codebooks; labels of every frame."""
    # MFCC are small, so that they are stored whatever is said of features.
    plan = plan_labels(config.label if model else LabelConfig(), clusters, learners)
    if model is None:
        features = ensure(Mfcc(extract, learners))
    else:
        features = ensure(Extract(extract, model, learners, plan, iteration))
    codebooks = ensure(Cluster(clusters, features, learners, plan.frames, iteration))
    if model is not None and plan.fused:
        labels = ensure(FusedLabel(extract, model, codebooks, learners, iteration))
    else:
        labels = ensure(Label(features, codebooks, learners, iteration))
    return features, codebooks, labels


PRETRAIN_NAMES = (
    *("mfcc", "cluster1", "label1", "pretrain1"),
    *("extract2", "cluster2", "label2", "pretrain2"),
)
"""Stages of the two iterations of pretraining."""
STAGE_NAMES = (
    *("ingest", "backbone", *PRETRAIN_NAMES, "warmup", "extract", "cluster", "label"),
    *("retrain", "finetune", "evaluate", "report"),
)


def stage_names(config: RunConfig) -> tuple[str, ...]:
    """The stages of a configuration, in order."""
    an_iteration = len(PRETRAIN_NAMES) // 2
    left_out = PRETRAIN_NAMES[config.pretrain.iterations * an_iteration :]
    return tuple(name for name in STAGE_NAMES if name not in left_out)


def run_pipeline(config: RunConfig, context: Context) -> Artifact:
    """Run every stage that was not run yet; the report's artefact.

    Raises:
        GmpAtlError: whatever stopped it; what was done before stays done.
    """
    context.store.check_writable()
    return sealed(method(config, context.source, _Runner(context)))


def run_stage(config: RunConfig, context: Context, name: str) -> None:
    """Run stage ``name`` for every fold; the stages before it must be done.

    Raises:
        ConfigError: there is no such stage, or not in this configuration.
        ArtifactError: a stage before it is not done; names it.
    """
    if name not in STAGE_NAMES:
        raise ConfigError(f"stage {name!r} is not known; known: {', '.join(STAGE_NAMES)}")
    if name not in stage_names(config):
        raise ConfigError(
            f"stage {name!r} is not a part of this experiment: pretrain.iterations = "
            f"{config.pretrain.iterations}; raise it"
        )
    context.store.check_writable()
    with suppress(_EnoughError):
        method(config, context.source, _Runner(context, only=name))


def survey(config: RunConfig, context: Context) -> list[StageStatus]:
    """Where every stage stands, without running any."""
    looker = _Looker(context)
    with suppress(_EnoughError):
        method(config, context.source, looker)
    return looker.found


def find_fold(
    config: RunConfig, store: Store, source: Store, number: int
) -> tuple[Artifact, Artifact, FoldArtifacts]:
    """Corpus, stock backbone, and what there is of fold ``number`` (from 1), without running any.

    Raises:
        ConfigError: there is no such fold.
        ArtifactError: not even the corpus or the backbone is done.
    """

    def look(stage: Stage) -> Handle:
        artifact = find_artifact(store, stage.key)
        if artifact is None and not stage.identity_is_fingerprint:
            raise ArtifactError(
                f"{stage.label} is not done below {store.uri} as this configuration has it; run "
                f"gmp-atl run with it first"
            )
        return artifact or Pending(stage.key)

    corpus = sealed(look(Ingest(config.corpus, read_corpus(config.corpus, source))))
    backbone = sealed(look(Backbone(config.model)))
    every = config.folds.model_copy(update={"run": ()})
    folds = plan_folds(one_of_each_group(corpus), every)
    if not 1 <= number <= len(folds):
        raise ConfigError(
            f"--fold {number}: there is no such fold; this corpus has 1 to {len(folds)}"
        )
    return corpus, backbone, one_fold(config, corpus, backbone, folds[number - 1], look)


class _EnoughError(Exception):
    """The walk cannot, or need not, go on."""


@dataclass
class _Runner:
    """Skips what is sealed and runs the rest; with ``only``, runs that stage and no other."""

    context: Context
    only: str | None = None

    def __call__(self, stage: Stage) -> Handle:
        with self.context.reporter.about(stage.label):
            return self._ensured(stage)

    def _ensured(self, stage: Stage) -> Handle:
        key, reporter = stage.key, self.context.reporter
        found = find_artifact(self.context.store, key)
        if found is not None:
            reporter.line(f"{stage.label}: done before, {key.fingerprint[:12]}")
            return found
        if self.only is not None and stage.name != self.only:
            if STAGE_NAMES.index(stage.name) < STAGE_NAMES.index(self.only):
                raise ArtifactError(
                    f"{stage.label} is not done, and {self.only} needs it; run gmp-atl stage "
                    f"{stage.name} with the same configuration first"
                )
            if not stage.identity_is_fingerprint:
                raise _EnoughError
            return Pending(key)
        reporter.line(f"{stage.label}: running, {key.fingerprint[:12]}")
        started_s = time.monotonic()
        out = ArtifactWriter(self.context.store, key)
        seal = stage.run(self.context, out)
        artifact = out.seal(
            version=stage.version,
            science=stage.science(),
            inputs={name: handle.identity for name, handle in stage.inputs().items()},
            identity=seal.identity,
            problems=seal.problems,
            notes=seal.notes,
        )
        reporter.line(f"{stage.label}: done in {time.monotonic() - started_s:.1f} s")
        return artifact


@dataclass(frozen=True)
class StageStatus:
    """One line of ``gmp-atl status``."""

    label: str
    fingerprint: str
    state: str
    detail: str = ""


@dataclass
class _Looker:
    """Looks at what there is."""

    context: Context
    found: list[StageStatus] = field(default_factory=list)

    def __call__(self, stage: Stage) -> Handle:
        key = stage.key
        artifact = find_artifact(self.context.store, key)
        if artifact is not None:
            detail = f"{sum(r.bytes for r in artifact.manifest.receipts) / 1e6:.1f} MB"
            self.found.append(StageStatus(stage.label, key.fingerprint, "done", detail))
            return artifact
        parts = ArtifactWriter(self.context.store, key).done()
        progress = read_progress(self.context.store, key)
        detail = f"{len(parts)} parts" if parts else ""
        if progress is not None:
            detail = progress.words(time.time())
        state = "started" if detail else "waiting"
        self.found.append(StageStatus(stage.label, key.fingerprint, state, detail))
        if not stage.identity_is_fingerprint:
            raise _EnoughError
        return Pending(key)
