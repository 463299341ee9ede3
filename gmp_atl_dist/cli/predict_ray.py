"""``gmp-atl predict --ray``: a corpus of any size into the store, part by part, on Ray."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from gmp_atl_dist.cli.options import load_experiment
from gmp_atl_dist.cli.predict_show import show
from gmp_atl_dist.cli.run import run_context
from gmp_atl_dist.cli.stops import stoppable_results
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.errors import ConfigError

if TYPE_CHECKING:
    from gmp_atl_dist.prediction.results import RecordingPrediction
    from gmp_atl_dist.records import Channel
    from gmp_atl_dist.stages.base import Stage
    from gmp_atl_dist.stages.ingest import Ingest
    from gmp_atl_dist.store.artifact import Artifact
    from gmp_atl_dist.store.filesystem import Store

_COMMAND = "predict --ray"


def predict_on_ray(
    model_uri: str,
    paths: Sequence[str],
    root: str | None,
    config: Path | None,
    overrides: list[str] | None,
    out: Path | None,
) -> int:
    """Ingest the corpus, run the stage ``predict``, and collect its parts into ``out`` if it is given.

    Raises:
        ConfigError: no corpus is named, or no root.
        CorpusError: some recordings could not be used; names them. The others are predicted.
    """
    from gmp_atl_dist.pipeline import ingested
    from gmp_atl_dist.stages.base import find_or_run
    from gmp_atl_dist.stages.predict import Predict, channel_of, emotions_of, finetuned_at
    from gmp_atl_dist.store.layout import claim_layout
    from gmp_atl_dist.store.leases import lease

    experiment = _experiment(paths, root, config, overrides)
    with run_context(experiment) as context, ExitStack() as held:
        context.store.check_writable()
        claim_layout(context.store)
        finetuned = finetuned_at(model_uri)
        # No record of a run names what is used here, so gc would take it for free.
        used = held.enter_context(lease(context.store, _COMMAND))
        if finetuned.store.uri == context.store.uri:
            used.add(finetuned.key.fingerprint)
        else:
            held.enter_context(lease(finetuned.store, _COMMAND)).add(finetuned.key.fingerprint)

        def made(stage: Stage) -> Artifact:
            used.add(stage.key.fingerprint)
            return find_or_run(stage, context)

        emotions = emotions_of(finetuned)
        corpus = (
            made(_ingest_of_recordings(context.source, channel_of(finetuned)))
            if paths
            # Read as ``run`` reads it, so both share one artefact; with [[corpora]], every source.
            else ingested(experiment, context.source, made)
        )
        predicted = made(Predict(corpus, finetuned, emotions))
    Reporter().line(f"predictions: {predicted.store.uri}/{predicted.key.prefix}/parts")
    total = sum(receipt.rows for receipt in predicted.manifest.receipts)
    with stoppable_results(), closing(_collected(predicted, corpus, emotions)) as results:
        total += len(corpus.manifest.problems)
        return show(results, emotions, out, total=total, longest=0, lines=False)


def _experiment(
    paths: Sequence[str], root: str | None, config: Path | None, overrides: list[str] | None
) -> RunConfig:
    if len(paths) > 1 or not (paths or config):
        raise ConfigError(
            "predict --ray takes one corpus: one folder or s3:// prefix of recordings, or --config with "
            "a TOML file that names one corpus or several"
        )
    if config is not None:
        experiment = load_experiment(config, overrides, root)
    elif overrides or root is None:
        raise ConfigError("predict --ray without --config needs --root, and takes no --set")
    else:
        experiment = RunConfig()
        runtime = experiment.runtime.model_copy(update={"root": root})
        experiment = experiment.model_copy(update={"runtime": runtime})
    if not paths:
        return experiment
    runtime = experiment.runtime.model_copy(update={"corpus": paths[0]})
    return experiment.model_copy(update={"runtime": runtime})


def _ingest_of_recordings(source: Store, channel: Channel) -> Ingest:
    from gmp_atl_dist.corpora.unlabelled import AUDIO_SUFFIXES, UNLABELLED, unlabelled_reader
    from gmp_atl_dist.stages.ingest import Ingest

    config = UNLABELLED.model_copy(update={"channel": channel})
    return Ingest(config, source, unlabelled_reader(AUDIO_SUFFIXES))


def _collected(
    predicted: Artifact, corpus: Artifact, emotions: Sequence[str]
) -> Generator[RecordingPrediction]:
    """The stored predictions, then the recordings that ``ingest`` left out. One part is in memory."""
    from gmp_atl_dist.audio import SAMPLE_RATE_HZ
    from gmp_atl_dist.prediction.results import EmotionSpan, RecordingPrediction
    from gmp_atl_dist.stages.predict import read_prediction_part
    from gmp_atl_dist.store.readers import read_part_utterances

    for part in predicted.part_names:
        lengths = {u.utterance_id: u.num_samples for u in read_part_utterances(corpus, part)}
        for utterance_id, probabilities in read_prediction_part(predicted, part):
            named = dict(zip(emotions, probabilities, strict=True))
            whole = EmotionSpan(0.0, lengths[utterance_id] / SAMPLE_RATE_HZ, named)
            yield RecordingPrediction(utterance_id, whole)
    for problem in corpus.manifest.problems:
        yield RecordingPrediction(_file_of(problem.item), error=problem.reason)


def _file_of(item: str) -> str:
    """The id of a bad item, which is named as ``ID (PATH)``; without labels both are the same."""
    half = item[: (len(item) - len(" ()")) // 2]
    return half if item == f"{half} ({half})" else item
