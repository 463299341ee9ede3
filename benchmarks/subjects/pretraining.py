"""The subject of ``benchmarks.pretrain``: two arms, pretrained and random weights, over several seeds."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from benchmarks.harness.rounds import MeasurementError
from benchmarks.inputs.stages import finish
from benchmarks.subjects.arms import Arms
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.corpora.folds import plan_folds
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.pipeline import pretrain
from gmp_atl_dist.runtime import RayConnection
from gmp_atl_dist.stages.backbone import Backbone
from gmp_atl_dist.stages.base import Context, Stage
from gmp_atl_dist.stages.evaluate import Evaluate, Prediction, read_predictions
from gmp_atl_dist.stages.finetune import Finetune
from gmp_atl_dist.stages.ingest import Ingest
from gmp_atl_dist.stages.pretrain import LARGEST_CLUSTER_NOTE, Pretrain
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.index import one_of_each_group
from gmp_atl_dist.store.readers import read_curves, read_emotions
from gmp_atl_dist.store.training_set import TrainingSet

ARMS = ("pretrained", "random")
_LAST_POINTS = 10


@dataclass(frozen=True)
class Comparison:
    """Predictions of both arms; lists have a value per iteration of pretraining."""

    masked_accuracy: list[float]
    largest_cluster_share: list[float]
    arms: Arms


def compare(config: RunConfig, seeds: int) -> Comparison:
    """Pretrain, then fine-tune and test each arm once per seed; what is done already is read.

    Raises:
        MeasurementError: the configuration does not pretrain.
    """
    if not config.pretrain.iterations:
        raise MeasurementError("pretrain.iterations = 0: nothing is pretrained; set it to 1 or 2")
    settings = config.runtime
    with RayConnection(settings) as cluster:
        context = Context(
            Store.open(settings.root),
            Store.open(settings.corpus),
            settings,
            Reporter(terminal=False),
            cluster,
        )
        corpus = finish(Ingest(config.corpus, context.source), context)
        random = finish(Backbone(config.model), context)
        fold = plan_folds(one_of_each_group(corpus), config.folds)[0]
        training = TrainingSet(corpus, fold.training_speakers())
        models: list[Artifact] = []

        def ensure(stage: Stage) -> Artifact:
            artifact = finish(stage, context)
            if isinstance(stage, Pretrain):
                models.append(artifact)
            return artifact

        pretrain(config, random, training, ensure)
        masked = [_masked_accuracy(model) for model in models]
        predicted: dict[str, list[tuple[Prediction, ...]]] = {arm: [] for arm in ARMS}
        for seed in range(seeds):
            for arm, model in zip(ARMS, (models[-1], random), strict=True):
                predicted[arm].append(_tested(config, context, corpus, model, fold, seed))
    return Comparison(
        masked_accuracy=[accuracy for accuracy, _ in masked],
        largest_cluster_share=[share for _, share in masked],
        arms=Arms.of(predicted, read_emotions(corpus)),
    )


def _masked_accuracy(model: Artifact) -> tuple[float, float]:
    """Mean of the last points of the curve, and what predicting the commonest label would score."""
    points = [value for _, value in read_curves(model)["accuracy_scale0"]]
    share = float(model.manifest.notes[LARGEST_CLUSTER_NOTE])
    accuracy = statistics.mean(points[-_LAST_POINTS:])
    print(
        f"pretrain {model.key.fingerprint[:12]}: accuracy on masked frames {accuracy:.1%} at the end, "
        f"{points[0]:.1%} at first; the largest cluster's share is {share:.1%}"
    )
    return accuracy, share


def _tested(
    config: RunConfig,
    context: Context,
    corpus: Artifact,
    model: Artifact,
    fold: Fold,
    seed: int,
) -> tuple[Prediction, ...]:
    """The predictions for the test utterances, in their order."""
    finetune = config.finetune.model_copy(update={"seed": seed})
    tuned = finish(Finetune(finetune, corpus, model, fold, None), context)
    return read_predictions(finish(Evaluate(corpus, tuned, fold), context))
