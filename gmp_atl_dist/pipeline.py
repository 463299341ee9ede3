"""GMP-ATL on one page: the stages in order, and what feeds what.

Paper: Pan et al., *GMP-ATL: Gender-augmented Multi-scale Pseudo-label Enhanced Adaptive Transfer
Learning for Speech Emotion Recognition via HuBERT*, arXiv 2405.02151.

The method is written once, here. ``execution.py`` walks it to run stages, ``stage_survey.py`` to show where
they stand, ``stage_order.py`` to learn their names and order. A new stage is one module in ``stages/`` and
one ``ensure(...)`` here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from gmp_atl_dist.config import ClusterConfig, ExtractConfig, LabelConfig, RunConfig
from gmp_atl_dist.corpora.reading import read_corpus
from gmp_atl_dist.corpora.sources import cut_of, reader_of, store_of
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.stages.backbone import Backbone, check_layers
from gmp_atl_dist.stages.base import Handle, Pending, Stage, sealed
from gmp_atl_dist.stages.cluster import Cluster
from gmp_atl_dist.stages.combine import Combine
from gmp_atl_dist.stages.evaluate import Evaluate
from gmp_atl_dist.stages.extract import Extract
from gmp_atl_dist.stages.finetune import Finetune, selection_side
from gmp_atl_dist.stages.fold_artifacts import FoldArtifacts
from gmp_atl_dist.stages.gender import PredictGender
from gmp_atl_dist.stages.ingest import Ingest
from gmp_atl_dist.stages.label import FusedLabel, Label
from gmp_atl_dist.stages.label_plan import plan_labels
from gmp_atl_dist.stages.mfcc import Mfcc
from gmp_atl_dist.stages.planned_folds import folds_of_corpus
from gmp_atl_dist.stages.pretrain import Pretrain
from gmp_atl_dist.stages.report import Report
from gmp_atl_dist.stages.retrain import Retrain
from gmp_atl_dist.stages.warmup import Warmup
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.training_set import TrainingSet

Ensure: TypeAlias = Callable[[Stage], Handle]
"""Turns a stage into its artefact: by running it, by looking it up, or not yet."""
ChooseFolds: TypeAlias = Callable[[RunConfig, Artifact], Sequence[Fold]]


def configured_folds(config: RunConfig, corpus: Artifact) -> tuple[Fold, ...]:
    """The folds that ``config.folds`` asks for, from the sealed corpus."""
    return folds_of_corpus(config, corpus)


def method(
    config: RunConfig, source: Store, ensure: Ensure, folds: ChooseFolds = configured_folds
) -> Handle:
    """The method, from recordings to the report."""
    corpus = ingested(config, source, ensure)
    backbone = sealed(ensure(Backbone(config.model)))
    if config.makes_labels:
        check_layers(backbone, config.extract.layers)
    if config.pretrain.iterations == 2:
        check_layers(backbone, (config.pretrain.layer,), "pretrain.layer")
    results = [one_fold(config, corpus, backbone, f, ensure) for f in folds(config, corpus)]
    return ensure(Report(config, corpus, backbone, tuple(results)))


def ingested(config: RunConfig, source: Store, ensure: Ensure) -> Artifact:
    """The corpus: of one ``ingest``, or combined from that of each source of ``[[corpora]]``."""
    if not config.corpora:
        read = partial(read_corpus, gender_needed=config.needs_gender)
        return sealed(ensure(Ingest(config.corpus, source, read)))
    emotions = config.corpus.emotions
    # One after the other: a stage keeps its listing, and that of a large source takes much memory.
    corpora = tuple(
        sealed(
            ensure(
                Ingest(
                    s.corpus(emotions), store_of(config, s), reader_of(config, s), s.name, cut_of(s)
                )
            )
        )
        for s in config.corpora
    )
    return sealed(ensure(Combine(emotions, config.corpora, corpora)))


def check_codebooks(
    config: RunConfig, corpus: Artifact, backbone: Artifact, folds: Sequence[Fold]
) -> None:
    """Check the codebooks that scales name, for every fold. Nothing runs: identities are known before.

    Raises:
        GmpAtlError: as :meth:`gmp_atl_dist.stages.cluster.Cluster.named_codebooks`.
    """
    if all(scale.codebook is None for scale in config.cluster.scales):
        return

    def check(stage: Stage) -> Handle:
        if isinstance(stage, Cluster):
            stage.named_codebooks(corpus.store)
        return Pending(stage)

    for fold in folds:
        one_fold(config, corpus, backbone, fold, check)


def one_fold(
    config: RunConfig, corpus: Artifact, backbone: Artifact, fold: Fold, ensure: Ensure
) -> FoldArtifacts:
    """Everything that is fitted for one fold. Nothing here uses the labels of the test speakers.

    ``extract.of`` and ``finetune.start`` name the models that two steps begin with. A step whose result no
    other one needs is left out, so each arm of an experiment runs its own stages and no others.
    """
    artifacts = FoldArtifacts(fold)
    ensure = artifacts.recorded(ensure)
    # Transductive: pretraining, clustering and retraining use the audio of the test speakers as well.
    transductive = config.folds.trains_on_test_audio
    speakers = fold.transductive_speakers() if transductive else fold.pseudo_label_speakers()
    training = TrainingSet(corpus, speakers)
    pretraining = TrainingSet(corpus, fold.with_pretrain_speakers(speakers))
    start = pretrain(config, backbone, pretraining, ensure)
    models = {"backbone": start}
    if config.warms_up:
        models["warmup"] = ensure(Warmup(config.warmup, corpus, start, fold))
    if config.makes_labels:
        grouped = training
        if config.predicts_gender:
            genders = ensure(PredictGender(models["warmup"], training))
            grouped = replace(training, genders=genders)
        codebooks, labels = pseudo_labels(
            config, config.cluster, config.extract, models[config.extract.of], grouped, ensure
        )
        models["retrain"] = ensure(Retrain(config.retrain, start, codebooks, labels, training))
    select_on = selection_side(config.finetune, config.folds)
    begin = models[config.finetune.start]
    finetuned = ensure(Finetune(config.finetune, corpus, begin, fold, select_on))
    ensure(Evaluate(corpus, finetuned, fold))
    return artifacts


def pretrain(
    config: RunConfig, backbone: Artifact, training: TrainingSet, ensure: Ensure
) -> Handle:
    """HuBERT from random weights, where there is no checkpoint. Without pretraining: ``backbone``."""
    model: Handle | None = None
    # extract.of is about the labels of retrain; here the argument says whose features these are.
    own = {"layers": (config.pretrain.layer,), "of": "warmup"}
    extract = config.extract.model_copy(update=own)
    for iteration in range(1, config.pretrain.iterations + 1):
        clusters = config.pretrain.clusters(iteration)
        codebooks, labels = pseudo_labels(
            config, clusters, extract, model, training, ensure, iteration
        )
        recipe = config.pretrain.training(iteration)
        # Each iteration starts from random weights: the next one takes over the labels only.
        model = ensure(Pretrain(recipe, backbone, codebooks, labels, training, iteration))
    return model or backbone


def pseudo_labels(
    config: RunConfig,
    clusters: ClusterConfig,
    extract: ExtractConfig,
    model: Handle | None,
    training: TrainingSet,
    ensure: Ensure,
    iteration: int = 0,
) -> tuple[Handle, Handle]:
    """Codebooks, and labels of every frame: of a model's features, or of MFCC without a model."""
    # MFCC are small, so they are stored whatever label.fused says.
    plan = plan_labels(config.label if model else LabelConfig(), clusters, training)
    if model is None:
        features = ensure(Mfcc(extract, training))
    else:
        features = ensure(Extract(extract, model, training, plan, iteration))
    codebooks = ensure(Cluster(clusters, features, training, plan, iteration))
    if model is not None and plan.fused:
        labels = ensure(FusedLabel(extract, model, codebooks, training, iteration))
    else:
        labels = ensure(Label(features, codebooks, training, iteration))
    return codebooks, labels
