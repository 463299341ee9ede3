"""Whether a fold may use a codebook that another run fitted, or that was imported.

A codebook carries the speech that it was fitted on. So one that was fitted on test speakers lets their speech
into the training of the fold, although no stage of the run reads it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from gmp_atl_dist.errors import ConfigError, CorpusError
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.records import FEATURE_SCHEMA
from gmp_atl_dist.stages.base import Handle
from gmp_atl_dist.stages.codebook_origin import (
    Declaration,
    FitOrigin,
    declaration_of,
    features_of,
    fit_origin,
    model_of,
)
from gmp_atl_dist.stages.lineage import ids_behind, read_recordings
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.lineage import rows_of
from gmp_atl_dist.store.training_set import TrainingSet


def check_codebook(
    codebook: Artifact, where: str, training: TrainingSet, features: Handle | None
) -> None:
    """Refuse a codebook that was, or may have been, fitted on speech outside the training set.

    Args:
        codebook: an artefact of kind ``codebook``.
        where: the key of the configuration that names it.
        training: of the fold that shall use it.
        features: of the fold, with which it is used; None if the model is not in the store yet. Whether
            it is the codebook's own model is not checked then.

    Raises:
        CorpusError: it was fitted on another speaker or utterance, on another corpus, or nobody declared
            on what. Names the speaker.
        ConfigError: it was fitted on features of another model.
        ArtifactError: what it was fitted on cannot be told.
    """
    declared = declaration_of(codebook)
    if declared is not None:
        transductive = training.training_speakers.transductive
        check_declaration(declared, where, training.fold, transductive=transductive)
        return
    name = _name(training.fold, where, codebook.key.fingerprint)
    origin = fit_origin(codebook)
    if origin.corpus != training.corpus.identity:
        raise CorpusError(
            f"{name} was fitted on another corpus ({origin.corpus[:12]}, this one is "
            f"{training.corpus.identity[:12]}), so its speakers cannot be compared with those of the fold; "
            f"leave the key codebook out, so that it is fitted here"
        )
    problems = list(_outside(origin, codebook, training))
    if problems:
        raise CorpusError.of_all(
            f"{name} was fitted on speech outside the training set of this fold; leave the key codebook "
            f"out, so that each fold fits its own, or run only the fold that fitted it (folds.run):",
            problems,
        )
    model = origin.model if features is None else model_of(features)
    if origin.model != model:
        raise ConfigError(
            f"{name} was fitted on features of {_named(origin.model)}, and this fold extracts those of "
            f"{_named(model)}; its centroids mean nothing there. Leave the key codebook out"
        )


def check_declaration(declared: Declaration, where: str, fold: Fold, *, transductive: bool) -> None:
    """Refuse an imported codebook by what its owner declares. The corpus need not be ingested.

    Args:
        where: the key of the configuration that names it.
        transductive: whether the audio of test speakers may be used.

    Raises:
        CorpusError: nobody declared what it was fitted on, or it names a speaker whom the fold tests or
            validates on.
    """
    if transductive:
        return
    name = _name(fold, where, declared.codebook)
    if not declared.fitted_on:
        raise CorpusError(
            f"{name} was imported, and nobody declared what it was fitted on, so it may know the test "
            f"speakers; import the file again with --fitted-on 'WHAT IT WAS FITTED ON' (and with "
            f"--speakers FILE where speakers of this corpus are among them), and name the new fingerprint"
        )
    problems = [
        f"speaker {speaker!r}, {_role(fold, speaker)}"
        for speaker in declared.speakers
        if speaker in (*fold.test_speakers, *fold.valid_speakers)
    ]
    if problems:
        raise CorpusError.of_all(
            f"{name} was imported, and by its declaration it was fitted on speech outside the training set "
            f"of this fold; use another codebook for this fold:",
            problems,
        )


def _outside(origin: FitOrigin, codebook: Artifact, training: TrainingSet) -> Iterator[str]:
    """Each speaker or utterance that the codebook knows and the training set does not hold."""
    allowed, fold = training.training_speakers, training.fold
    strangers = [s for s in origin.speakers if s not in allowed.speakers]
    yield from (f"speaker {speaker!r}, {_role(fold, speaker)}" for speaker in strangers)
    if allowed.utterance_ids is None or strangers:
        return
    ids: Collection[str] | None = None
    if origin.utterances:
        ids = ids_behind(origin.utterances, [fold])
        ids = _extracted(codebook) if ids is None else ids
        if ids is None:
            yield (
                f"which utterances of its {len(origin.speakers)} speakers it was fitted on cannot be told, "
                f"because its features are gone"
            )
            return
    index = rows_of(read_recordings(training.corpus), origin.speakers, ids)
    for row in index.select(["utterance_id", "speaker"]).to_pylist():
        if row["utterance_id"] not in allowed.utterance_ids:
            yield f"utterance {row['utterance_id']!r} of speaker {row['speaker']!r}"


def _extracted(codebook: Artifact) -> set[str] | None:
    """The utterances whose features the codebook was fitted on; None if the features are gone."""
    features = features_of(codebook)
    if features is None:
        return None
    tables = (features.read_part(p, FEATURE_SCHEMA, ["utterance_id"]) for p in features.part_names)
    return {utterance_id for t in tables for utterance_id in t["utterance_id"].to_pylist()}


def _name(fold: Fold, where: str, fingerprint: str) -> str:
    return f"{fold.name}: {where} = codebook {fingerprint[:12]}"


def _role(fold: Fold, speaker: str) -> str:
    if speaker in fold.test_speakers:
        return f"whom {fold.name} tests"
    if speaker in fold.valid_speakers:
        return f"on whom {fold.name} validates"
    return f"who is no training speaker of {fold.name}"


def _named(model: dict[str, str] | object) -> str:
    if not isinstance(model, dict) or not model:
        return "MFCC"
    return ", ".join(f"{kind} {identity[:12]}" for kind, identity in model.items())
