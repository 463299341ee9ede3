"""Whether test speech would come into a training by the start model or by a named codebook.

A run checks this after ``ingest`` and ``backbone``. Here nothing is computed. Where the corpus is ingested
already, the check is that of the run. Otherwise it knows the listed speakers, and not the samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gmp_atl_dist import pipeline
from gmp_atl_dist.config import RANDOM_SOURCE, RunConfig
from gmp_atl_dist.corpora.reading import read_corpus
from gmp_atl_dist.corpora.sources import list_sources
from gmp_atl_dist.doctor.deadline import BackgroundCall
from gmp_atl_dist.doctor.findings import Finding, fatal, warning
from gmp_atl_dist.doctor.storage_errors import explain
from gmp_atl_dist.errors import ArtifactError, ConfigError, CorpusError, GmpAtlError, ModelError
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.stages.backbone import Backbone
from gmp_atl_dist.stages.base import Handle, Stage
from gmp_atl_dist.stages.before_fitting import (
    check_last_layer,
    check_listed_speakers,
    check_trained_on,
)
from gmp_atl_dist.stages.codebook_origin import CODEBOOK, declaration_of
from gmp_atl_dist.stages.codebook_use import check_codebook, check_declaration
from gmp_atl_dist.stages.lineage import lineage_of_backbone, lineage_of_source
from gmp_atl_dist.stages.planned_folds import folds_of_listing
from gmp_atl_dist.store.artifact import Artifact, artifact_of, find_artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.layout import LAYOUT_PATH
from gmp_atl_dist.store.lineage import Lineage
from gmp_atl_dist.store.training_set import TrainingSet

LINEAGE_CHECK = "lineage"
LATER = "gmp-atl run compares the recordings, once they are ingested"
_ITEM = "start model and codebooks"


def check_leaks(config: RunConfig, timeout_s: float, labels_s: float) -> Iterator[Finding]:
    """What :func:`refuse_leaks` says, for at most ``labels_s``. A bad corpus is named by its own check."""
    if not _answers(config.runtime.root, timeout_s):
        return  # Its own check says so.
    try:
        known = known_of(config, timeout_s)
        if known is None:
            return
        call = BackgroundCall(lambda: refuse_leaks(config, known, lambda: _listed_folds(config)))
        unclear = call.result(labels_s)
    except _CorpusNotListed:
        return
    except TimeoutError:
        value = f"reading the labels of the corpus took more than {labels_s:g} s"
        remedy = "normal for a large corpus; gmp-atl corpora check compares them too"
        yield warning(LINEAGE_CHECK, _ITEM, value, remedy)
    except CorpusError as e:
        headline, *lines = e.message.splitlines()
        value, _, remedy = headline.rstrip(":").partition("; ")
        for line in [line.removeprefix("  - ") for line in lines] or [value]:
            yield fatal(LINEAGE_CHECK, _ITEM, line, remedy)
    except (ConfigError, ModelError) as e:
        value, _, remedy = e.message.partition("; ")
        yield fatal("model", _ITEM, value, remedy or "name another one")
    except ArtifactError as e:
        value, remedy = (e.message, "name another one") if e.__cause__ is None else explain(e)
        yield fatal("model", _ITEM, value, remedy)
    else:
        for line in unclear:
            yield warning(LINEAGE_CHECK, _ITEM, line, LATER)


def _answers(root: str, timeout_s: float) -> bool:
    try:
        Store.open(root, timeout_s).exists(LAYOUT_PATH)
    except ArtifactError:
        return False
    return True


def leaks_of(findings: Sequence[Finding]) -> CorpusError | None:
    """The error of a run, if it would be refused for what its start model or codebooks know."""
    values = [f.value for f in findings if f.check == LINEAGE_CHECK and f.severity == "fatal"]
    if not values:
        return None
    headline = "the start model, or a codebook that a scale names, cannot be used for these folds:"
    return CorpusError("\n".join([headline, *(f"  - {value}" for value in values)]))


@dataclass(frozen=True)
class Known:
    """What comes from other runs: the start model's lineage, and codebooks by the key that names them."""

    store: Store
    lineage: Lineage
    codebooks: list[tuple[str, Artifact]]
    backbone: Artifact | None


def known_of(config: RunConfig, timeout_s: float | None = None) -> Known | None:
    """None if neither the start model nor a codebook is known to be trained on anything.

    Args:
        timeout_s: of each request to the root, if that is on S3.

    Raises:
        GmpAtlError: the model or a codebook cannot be read.
    """
    scales = config.cluster.scales if config.makes_labels else ()
    named = [(i, s.codebook) for i, s in enumerate(scales) if s.codebook is not None]
    if not named and config.model.source.startswith(RANDOM_SOURCE):
        return None
    store = Store.open(config.runtime.root, timeout_s)
    backbone = find_artifact(store, Backbone(config.model).key)
    lineage = lineage_of_source(config.model) if backbone is None else lineage_of_backbone(backbone)
    if not named and (lineage is None or not lineage.trained_on):
        return None
    books = [
        (f"cluster.scales[{i}].codebook", artifact_of(store, CODEBOOK, name)) for i, name in named
    ]
    return Known(store, lineage or Lineage(start=""), books, backbone)


def refuse_leaks(
    config: RunConfig, known: Known, listed: Callable[[], Sequence[Fold]]
) -> list[str]:
    """Refuse a start model or a codebook whose training set meets the test set of a fold.

    Args:
        listed: the folds of the corpus as its labels are listed. Called if it is not ingested.

    Returns:
        What is known after ``ingest`` only, a line each.

    Raises:
        CorpusError: names the fold, the speakers, and the training set.
        GmpAtlError: the model or a codebook does not fit.
    """
    corpus = _ingested(config, known.store)
    if corpus is None:
        return _check_listed(config, listed(), known)
    _check_rows(config, corpus, known)
    return []


def _check_rows(config: RunConfig, corpus: Artifact, known: Known) -> None:
    """The checks of a run, as far as the model is in the store."""
    folds = pipeline.configured_folds(config, corpus)
    check_trained_on(config, corpus, known.lineage, folds)
    if known.backbone is not None:
        check_last_layer(config, known.backbone)
        pipeline.check_codebooks(config, corpus, known.backbone, folds)
        return
    transductive = config.folds.trains_on_test_audio
    for fold in folds:
        speakers = fold.transductive_speakers() if transductive else fold.pseudo_label_speakers()
        for where, codebook in known.codebooks:
            check_codebook(codebook, where, TrainingSet(corpus, speakers), None)


def _check_listed(config: RunConfig, folds: Sequence[Fold], known: Known) -> list[str]:
    """The checks by names of speakers. A codebook fitted here is of a corpus that is ingested."""
    unclear = check_listed_speakers(config, known.lineage, folds)
    for where, codebook in known.codebooks:
        declared = declaration_of(codebook)
        if declared is None:
            unclear.append(
                f"{where}: codebook {codebook.key.fingerprint[:12]} was fitted on a corpus below this root, "
                f"and the one of this configuration is not ingested there"
            )
            continue
        for fold in folds:
            transductive = config.folds.trains_on_test_audio
            check_declaration(declared, where, fold, transductive=transductive)
    return unclear


class _NotIngested(Exception):
    """A stage of the corpus is not done."""


def _ingested(config: RunConfig, store: Store) -> Artifact | None:
    """The corpus as a run would find it; None if the run would ingest it first."""

    def look(stage: Stage) -> Handle:
        artifact = find_artifact(store, stage.key)
        if artifact is None:
            raise _NotIngested
        return artifact

    try:
        return pipeline.ingested(config, Store.open(config.runtime.corpus), look)
    except _NotIngested:
        return None


class _CorpusNotListed(Exception):
    """The labels or the folds are wrong."""


def _listed_folds(config: RunConfig) -> Sequence[Fold]:
    try:
        if config.corpora:
            found = list_sources(config)
            utterances = [u for f in found if f.source.is_labelled for u in f.utterances]
        else:
            source = Store.open(config.runtime.corpus)
            listing = read_corpus(config.corpus, source, gender_needed=config.needs_gender)
            utterances = listing.utterances
        return folds_of_listing(config, utterances)
    except GmpAtlError as e:
        raise _CorpusNotListed from e
