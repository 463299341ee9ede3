"""What a codebook says of itself: what it was fitted on, or what the owner of an imported one declares."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.stages.base import Handle, Pending
from gmp_atl_dist.store.artifact import Artifact, find_artifact
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.training_set import TrainingSet

if TYPE_CHECKING:
    from gmp_atl_dist.config import Json

CODEBOOK = "codebook"
"""The kind of an artefact with the codebooks of one scale."""
FITTED_ON = "fitted_on"
"""The note of a fitted codebook, and the key of a declaration."""
EXTRACTORS = ("fairseq", "gmp-atl")
"""Whose features a codebook may be of. They differ in the last layer of models with stable layer norm."""
_NO_MODEL = ("corpus", "gender")
_FEATURES = ("extract", "mfcc")


@dataclass(frozen=True)
class Declaration:
    """What the owner of an imported codebook says it was fitted on.

    Attributes:
        codebook: the fingerprint of its artefact.
        fitted_on: in the owner's words; empty if nothing was declared.
        speakers: those of the corpus of a run that are among them.
        extracted_by: one of ``EXTRACTORS``.
    """

    codebook: str
    layer: int
    fitted_on: str = ""
    speakers: tuple[str, ...] = ()
    extracted_by: str = EXTRACTORS[0]

    @staticmethod
    def science(fitted_on: str, speakers: tuple[str, ...], extracted_by: str) -> dict[str, Json]:
        """What an imported codebook is keyed by beside its centroids. Nothing declared changes no key."""
        science: dict[str, Json] = {}
        if fitted_on:
            science[FITTED_ON] = fitted_on
        if speakers:
            science["speakers"] = sorted({*speakers})
        if extracted_by != EXTRACTORS[0]:
            science["extracted_by"] = extracted_by
        return science

    def sentence(self) -> str:
        """For the protocol of a report."""
        name = f"Codebook {self.codebook[:12]} of layer {self.layer} was imported"
        if not self.fitted_on:
            return f"{name}; what it was fitted on is not declared."
        named = f" It names {len(self.speakers)} speakers." if self.speakers else ""
        return f"{name}; its owner declares: {self.fitted_on.rstrip('.')}.{named}"


def declaration_of(codebook: Artifact) -> Declaration | None:
    """The declaration of an imported codebook; None if it was fitted here."""
    science = codebook.manifest.science
    if "imported" not in science:
        return None
    return Declaration(
        codebook.key.fingerprint,
        cast("int", science["layer"]),
        str(science.get(FITTED_ON, "")),
        tuple(cast("list[str]", science.get("speakers", []))),
        str(science.get("extracted_by", EXTRACTORS[0])),
    )


def origin_sentence(codebook: Artifact) -> str:
    """Where a codebook comes from that a run names, for the protocol of its report."""
    declared = declaration_of(codebook)
    if declared is not None:
        return declared.sentence()
    return (
        f"Codebook {codebook.key.fingerprint[:12]} was fitted by an earlier run, on "
        f"{len(fit_origin(codebook).speakers)} speakers, all in the training set of each fold."
    )


@dataclass(frozen=True)
class FitOrigin:
    """What a codebook was fitted on.

    Attributes:
        corpus: the identity of the corpus.
        speakers: the training set.
        utterances: digests of the sides of a fold that names utterances, by side; else empty.
        model: identity by kind, of the model whose features they were; empty for MFCC.
    """

    corpus: str
    speakers: tuple[str, ...]
    utterances: Mapping[str, str] = field(default_factory=dict)
    model: Mapping[str, str] = field(default_factory=dict)


def model_of(features: Handle) -> dict[str, str]:
    """Identity by kind of the model that features come from; empty for MFCC."""
    if isinstance(features, Pending):
        inputs = {name: handle.identity for name, handle in features.stage.inputs().items()}
    else:
        inputs = features.manifest.inputs
    return {name: identity for name, identity in inputs.items() if name not in _NO_MODEL}


def fit_notes(training: TrainingSet, features: Handle) -> dict[str, str]:
    """The note that a fitted codebook carries, so that it tells this without its features."""
    hashed = training.training_speakers.hashed()
    origin = {
        "speakers": hashed.pop("speakers"),
        "utterances": {name.removesuffix("_utterances"): d for name, d in hashed.items()},
        "model": model_of(features),
    }
    return {FITTED_ON: json.dumps(origin, sort_keys=True)}


def fit_origin(codebook: Artifact) -> FitOrigin:
    """What a fitted codebook was fitted on: by its note, or by the features that it was fitted on.

    Raises:
        ArtifactError: an earlier release fitted it, and its features are gone.
    """
    corpus = codebook.manifest.inputs["corpus"]
    note = codebook.manifest.notes.get(FITTED_ON)
    if note is not None:
        values = json.loads(note)
        return FitOrigin(corpus, tuple(values["speakers"]), values["utterances"], values["model"])
    features = features_of(codebook)
    speakers = None if features is None else features.manifest.science.get("speakers")
    if features is None or speakers is None:
        raise ArtifactError(
            f"{codebook.key.prefix}: an earlier release fitted this codebook, which did not note on "
            f"whom, and its features {codebook.manifest.inputs['features'][:12]} are gone from "
            f"{codebook.store.uri}; leave the key codebook out, so that it is fitted again, or copy these "
            f"features back"
        )
    sides = {
        name.removesuffix("_utterances"): str(value)
        for name, value in features.manifest.science.items()
        if name.endswith("_utterances")
    }
    return FitOrigin(corpus, tuple(cast("list[str]", speakers)), sides, model_of(features))


def features_of(codebook: Artifact) -> Artifact | None:
    """The features that a codebook was fitted on; None if they are gone."""
    fingerprint = codebook.manifest.inputs["features"]
    keys = (ArtifactKey(kind, fingerprint) for kind in _FEATURES)
    return next((found for key in keys if (found := find_artifact(codebook.store, key))), None)
