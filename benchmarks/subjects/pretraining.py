"""The subject of ``benchmarks.pretrain``: two arms, pretrained and random weights, over several seeds."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student_t

from benchmarks.harness.rounds import MeasurementError
from benchmarks.inputs.stages import finish
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.corpora.folds import plan_folds
from gmp_atl_dist.metrics import confusion_matrix, scores_from_confusion
from gmp_atl_dist.pipeline import pretrain
from gmp_atl_dist.records import Fold
from gmp_atl_dist.runtime import RayConnection
from gmp_atl_dist.stages.backbone import Backbone
from gmp_atl_dist.stages.base import Context, Stage
from gmp_atl_dist.stages.evaluate import Evaluate, read_predictions
from gmp_atl_dist.stages.finetune import Finetune
from gmp_atl_dist.stages.ingest import Ingest
from gmp_atl_dist.stages.pretrain import LARGEST_CLUSTER_NOTE, Pretrain
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.index import one_of_each_group
from gmp_atl_dist.store.readers import read_curves, read_emotions
from gmp_atl_dist.store.training_set import TrainingSet

ARMS = ("pretrained", "random")
_DRAWS = 2000
_LAST_POINTS = 10
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Comparison:
    """Figures of both arms; lists have a value per iteration of pretraining, or per seed."""

    masked_accuracy: list[float]
    largest_cluster_share: list[float]
    uar: dict[str, list[float]]
    over_utterances: tuple[float, float]
    over_seeds: tuple[float, float] | None
    test_utterances: int


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
        classes = read_emotions(corpus)
        predicted: dict[str, list[np.ndarray]] = {arm: [] for arm in ARMS}
        true = np.empty(0, np.int64)
        for seed in range(seeds):
            for arm, model in zip(ARMS, (models[-1], random), strict=True):
                true, of_arm = _tested(config, context, corpus, model, fold, seed, classes)
                predicted[arm].append(of_arm)
    uar = {arm: [_uar(true, p, len(classes)) for p in predicted[arm]] for arm in ARMS}
    return Comparison(
        masked_accuracy=[accuracy for accuracy, _ in masked],
        largest_cluster_share=[share for _, share in masked],
        uar=uar,
        over_utterances=_over_utterances(true, predicted, len(classes)),
        over_seeds=_over_seeds(uar),
        test_utterances=len(true),
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
    classes: tuple[str, ...],
) -> tuple[np.ndarray, np.ndarray]:
    """(true, predicted) classes of the test utterances, in their order."""
    finetune = config.finetune.model_copy(update={"seed": seed})
    tuned = finish(Finetune(finetune, corpus, model, fold, None), context)
    predictions = read_predictions(finish(Evaluate(corpus, tuned, fold), context))
    true = np.array([classes.index(p.emotion) for p in predictions])
    return true, np.array([classes.index(p.predicted) for p in predictions])


def _uar(true: np.ndarray, predicted: np.ndarray, num_classes: int) -> float:
    matrix = confusion_matrix(true.tolist(), predicted.tolist(), num_classes)
    return scores_from_confusion(matrix).uar


def _over_utterances(
    true: np.ndarray, predicted: dict[str, list[np.ndarray]], num_classes: int
) -> tuple[float, float]:
    """Bootstrap interval of the difference of the arms' means."""
    rng = np.random.default_rng(0)
    differences: list[float] = []
    for _ in range(_DRAWS):
        drawn = rng.integers(0, len(true), len(true))
        means = [
            statistics.mean(_uar(true[drawn], p[drawn], num_classes) for p in predicted[arm])
            for arm in ARMS
        ]
        differences.append(means[0] - means[1])
    low, high = np.quantile(differences, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return float(low), float(high)


def _over_seeds(uar: dict[str, list[float]]) -> tuple[float, float] | None:
    """Student's interval of the paired differences; None for one seed, which has no spread."""
    differences = np.subtract(uar["pretrained"], uar["random"])
    count = len(differences)
    if count < 2:
        return None
    spread = float(differences.std(ddof=1)) / math.sqrt(count)
    reach = float(student_t.ppf((1 + _CONFIDENCE) / 2, count - 1)) * spread
    return float(differences.mean()) - reach, float(differences.mean()) + reach
