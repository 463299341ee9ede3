"""What pretraining on a little speech is worth: fine-tuning from it against fine-tuning from random weights.

    python -m benchmarks.pretrain --config configs/nemo_pretrain.toml --set runtime.corpus=../shared/data/nemo

Pretrains on the fold's training speakers as the configuration says, then fine-tunes and tests, from the
pretrained and from the random weights, once a seed, by the same updates and batches. Held-out speakers
are unheard by everything. Two intervals of the difference: over test utterances, a bootstrap, the same
ones in both arms, of the mean over seeds; and over seeds, Student's of the paired differences. A run
that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics

import numpy as np
from scipy.stats import t as student_t

from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.config.file import load_config
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.corpora.folds import plan_folds
from gmp_atl_dist.metrics import confusion_matrix, scores_from_confusion
from gmp_atl_dist.pipeline import pretrain
from gmp_atl_dist.records import Fold
from gmp_atl_dist.runtime import RayConnection
from gmp_atl_dist.stages.backbone import Backbone
from gmp_atl_dist.stages.base import Context, Stage, sealed
from gmp_atl_dist.stages.evaluate import Evaluate, read_predictions
from gmp_atl_dist.stages.finetune import Finetune
from gmp_atl_dist.stages.ingest import Ingest
from gmp_atl_dist.stages.pretrain import LARGEST_CLUSTER_NOTE
from gmp_atl_dist.store.artifact import Artifact, ArtifactWriter, find_artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.index import one_of_each_group
from gmp_atl_dist.store.readers import read_curves, read_emotions
from gmp_atl_dist.store.training_set import TrainingSet

ARMS = ("pretrained", "random")
_DRAWS = 2000
_LAST_POINTS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    config = load_config(args.config, args.set)
    runtime = config.runtime
    with RayConnection(runtime) as cluster:
        context = Context(
            Store.open(runtime.root),
            Store.open(runtime.corpus),
            runtime,
            Reporter(terminal=False),
            cluster,
        )
        found = _compare(config, context, args.seeds)
    print(json.dumps(found))


def _compare(config: RunConfig, context: Context, seeds: int) -> dict[str, object]:
    corpus = _finish(Ingest(config.corpus, context.source), context)
    random = _finish(Backbone(config.model), context)
    fold = plan_folds(one_of_each_group(corpus), config.folds)[0]
    training = TrainingSet(corpus, fold.training_speakers())
    iterations = pretrain(config, random, training, lambda stage: _finish(stage, context))
    models = [sealed(iteration.model) for iteration in iterations]
    accuracy = [_masked_accuracy(model) for model in models]
    pretrained = models[-1]
    classes = read_emotions(corpus)
    true: np.ndarray | None = None
    said: dict[str, list[np.ndarray]] = {arm: [] for arm in ARMS}
    for seed in range(seeds):
        for arm, start in zip(ARMS, (pretrained, random), strict=True):
            true, predicted = _tested(config, context, corpus, start, fold, seed, classes)
            said[arm].append(predicted)
    assert true is not None, "there is a seed"
    uar = {arm: [_uar(true, p, len(classes)) for p in said[arm]] for arm in ARMS}
    low, high = _over_utterances(true, said, len(classes))
    seed_low, seed_high = _over_seeds(uar)
    for arm, values in uar.items():
        print(f"{arm}: UAR {', '.join(f'{v:.1%}' for v in values)}")
    print(f"difference of the means, 95 % of draws of test utterances: {low:+.1%} to {high:+.1%}")
    print(f"the same, 95 % of Student's t over {seeds} seeds: {seed_low:+.1%} to {seed_high:+.1%}")
    return {
        "masked_accuracy": [round(a, 4) for a, _ in accuracy],
        "largest_cluster_share": [round(s, 4) for _, s in accuracy],
        "uar_pretrained": round(statistics.mean(uar["pretrained"]), 4),
        "uar_random": round(statistics.mean(uar["random"]), 4),
        "uar_difference_low": round(low, 4),
        "uar_difference_high": round(high, 4),
        "uar_difference_seeds_low": round(seed_low, 4),
        "uar_difference_seeds_high": round(seed_high, 4),
        "test_utterances": len(true),
    }


def _masked_accuracy(model: Artifact) -> tuple[float, float]:
    """Of the last points of the curve, and what always saying the commonest label would score."""
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
    start: Artifact,
    fold: Fold,
    seed: int,
    classes: tuple[str, ...],
) -> tuple[np.ndarray, np.ndarray]:
    """(true, predicted) classes of the test utterances, in their order."""
    finetune = config.finetune.model_copy(update={"seed": seed})
    tuned = _finish(Finetune(finetune, corpus, start, fold, None), context)
    predictions = read_predictions(_finish(Evaluate(corpus, tuned, fold), context))
    true = np.array([classes.index(p.emotion) for p in predictions])
    return true, np.array([classes.index(p.predicted) for p in predictions])


def _finish(stage: Stage, context: Context) -> Artifact:
    found = find_artifact(context.store, stage.key)
    if found is not None:
        return found
    out = ArtifactWriter(context.store, stage.key)
    seal = stage.run(context, out)
    return out.seal(
        version=stage.version,
        science=stage.science(),
        inputs={name: handle.identity for name, handle in stage.inputs().items()},
        identity=seal.identity,
        problems=seal.problems,
        notes=seal.notes,
    )


def _uar(true: np.ndarray, predicted: np.ndarray, num_classes: int) -> float:
    matrix = confusion_matrix(true.tolist(), predicted.tolist(), num_classes)
    return scores_from_confusion(matrix).uar


def _over_utterances(
    true: np.ndarray, said: dict[str, list[np.ndarray]], num_classes: int
) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    differences: list[float] = []
    for _ in range(_DRAWS):
        drawn = rng.integers(0, len(true), len(true))
        means = [
            statistics.mean(_uar(true[drawn], p[drawn], num_classes) for p in said[arm])
            for arm in ARMS
        ]
        differences.append(means[0] - means[1])
    low, high = np.quantile(differences, [0.025, 0.975])
    return float(low), float(high)


def _over_seeds(uar: dict[str, list[float]]) -> tuple[float, float]:
    differences = np.subtract(uar["pretrained"], uar["random"])
    if len(differences) < 2:
        return math.nan, math.nan
    spread = float(differences.std(ddof=1)) / math.sqrt(len(differences))
    reach = float(student_t.ppf(0.975, len(differences) - 1)) * spread
    return float(differences.mean()) - reach, float(differences.mean()) + reach


if __name__ == "__main__":
    main()
