"""The subject of ``benchmarks.mixed``: a configuration with unlabelled speech, and the same one without."""

from __future__ import annotations

from benchmarks.harness.rounds import MeasurementError
from benchmarks.subjects.arms import Arms
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.execution import open_context, run_pipeline
from gmp_atl_dist.stage_survey import FoundFold, find_fold
from gmp_atl_dist.stages.evaluate import Evaluate, read_predictions
from gmp_atl_dist.store.readers import read_emotions

WITH, WITHOUT = "with", "without"


def compare(config: RunConfig, seeds: int) -> Arms:
    """Run both arms once per seed, and read their predictions; what is done already is not run again.

    A seed replaces those of ``warmup``, ``cluster``, ``retrain`` and ``finetune``. Updates and batches are
    those of the configuration in both arms.

    Raises:
        MeasurementError: no source is unlabelled, or there are several folds.
    """
    arms = {WITH: config, WITHOUT: without_unlabelled(config)}
    predictions = {arm: [] for arm in arms}
    emotions: tuple[str, ...] = ()
    for seed in range(seeds):
        for arm, of_arm in arms.items():
            found = _run(with_seed(of_arm, seed))
            emotions = read_emotions(found.corpus)
            artifact = found.artifacts.artifact(Evaluate.kind)
            predictions[arm].append(read_predictions(artifact))
    return Arms.of(predictions, emotions)


def without_unlabelled(config: RunConfig) -> RunConfig:
    """The same configuration with its labelled sources alone."""
    labelled = [source for source in config.corpora if source.role != "unlabelled"]
    if len(labelled) == len(config.corpora):
        raise MeasurementError("no source of [[corpora]] has role = 'unlabelled'; add one")
    raw = config.model_dump(exclude_unset=True)
    names = {source.name for source in labelled}
    raw["corpora"] = [source.model_dump(exclude_unset=True) for source in labelled]
    places = {name: place for name, place in config.runtime.corpora.items() if name in names}
    raw["runtime"] = {**raw["runtime"], "corpora": places}
    raw["retrain"] = {k: v for k, v in raw["retrain"].items() if k != "unlabelled_share"}
    return RunConfig.model_validate(raw)


def with_seed(config: RunConfig, seed: int) -> RunConfig:
    """The same configuration with another seed of everything that is fitted for a fold."""
    sections = ("warmup", "cluster", "retrain", "finetune")
    seeded = {name: getattr(config, name).model_copy(update={"seed": seed}) for name in sections}
    return config.model_copy(update=seeded)


def _run(config: RunConfig) -> FoundFold:
    with open_context(config, Reporter(terminal=False)) as context:
        run_pipeline(config, context)
        try:
            return find_fold(config, context.store, context.source, number=None)
        except ConfigError as e:
            raise MeasurementError(f"one fold is compared: {e}") from e
