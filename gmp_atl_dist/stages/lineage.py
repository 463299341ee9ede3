"""What an artefact was trained on, found by its manifest and those of its inputs.

Every stage that reads a training set names its speakers in its manifest. So the lineage of a model follows
from the store alone, also where an earlier release made the model. A fold that names utterances stands in a
manifest as digests. Whoever knows the fold can tell the utterances behind them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pyarrow as pa

from gmp_atl_dist.config import RANDOM_SOURCE, ModelConfig
from gmp_atl_dist.errors import ArtifactError, ModelError
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.records import UTTERANCE_SCHEMA, Split
from gmp_atl_dist.stages.codebook_origin import CODEBOOK, declaration_of
from gmp_atl_dist.store.artifact import Artifact, artifact_of, find_artifact, list_artifacts
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.lineage import LINEAGE_KEY, LINEAGE_NAME, Lineage, TrainedOn, rows_of
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.readers import INDEX_PART

_CORPORA = ("ingest", "combine")
_BY_IDENTITY = (*_CORPORA, "backbone")
"""Kinds whose identity is not their fingerprint."""
_TRAINED = ("pretrain", "warmup", "retrain", "finetune")
"""Kinds of models. Codebooks and labels behind them are of the same training sets."""
_PASSED_ON = {"label": "features", "retrain": "labels", "pretrain": "labels"}
"""The input whose training set a kind has, where its manifest names no speaker."""
_SIDES: tuple[Split, ...] = ("train", "valid", "test")
_INDEX_COLUMNS = ["utterance_id", "speaker", "audio_sha256"]
_IN_STORE = re.compile(
    r"(?P<root>.+)/artifacts/(?P<kind>[^/]+)/(?P<fingerprint>[0-9a-f]{64})/files"
)


def start_of(backbone: Artifact) -> str:
    """The stock model of a ``backbone`` artefact in words. A path or URI is private, and not in them."""
    model = cast("Mapping[str, object]", backbone.manifest.science["model"])
    source = str(model["source"])
    if source.startswith(RANDOM_SOURCE):
        return f"random weights (size {source.removeprefix(RANDOM_SOURCE)}, seed {model['seed']})"
    if backbone.manifest.science.get("listing") is not None:
        return f"a model from a folder or URI (identity {backbone.identity[:12]})"
    return f"{source}, revision {str(model['revision'])[:12]}"


def lineage_of_backbone(backbone: Artifact) -> Lineage:
    """The lineage of a ``backbone`` artefact; without training sets if none is known.

    Raises:
        ModelError: its file is damaged.
    """
    if f"files/{LINEAGE_NAME}" not in backbone.receipts:
        return Lineage(start=start_of(backbone))
    return Lineage.read(backbone.read_file(LINEAGE_NAME), backbone.key.prefix)


def lineage_in_store(source: str) -> Lineage | None:
    """The lineage of ``model.source`` where it is the ``files/`` folder of an artefact; else None.

    Raises:
        ArtifactError: an artefact that it was made of is gone.
    """
    folder = Path(source).expanduser()
    place = str(folder.resolve()) if "://" not in source and folder.is_dir() else source
    found = _IN_STORE.fullmatch(place.rstrip("/"))
    if found is None:
        return None
    artifact = find_artifact(
        Store.open(found["root"]), ArtifactKey(found["kind"], found["fingerprint"])
    )
    return None if artifact is None else lineage_of(artifact)


def lineage_of_source(config: ModelConfig) -> Lineage | None:
    """The lineage of ``model.source`` before it is copied to the store; None if none is known.

    Only folders and URIs are looked at. What a hub id names is known once it is downloaded.

    Raises:
        ModelError: its ``config.json``, or the lineage in there, is damaged.
        ArtifactError: there is no ``config.json``, or an artefact that it was made of is gone.
    """
    if not named_source(config):
        return None
    try:
        values = json.loads(Store.open(config.source).read("config.json"))
    except ValueError as e:
        raise ModelError(f"{config.source}: config.json is not valid JSON ({e})") from None
    told = values.get(LINEAGE_KEY) if isinstance(values, dict) else None
    return lineage_in_store(config.source) if told is None else Lineage.read(told, config.source)


def lineage_of(artifact: Artifact, folds: Sequence[Fold] = ()) -> Lineage:
    """What a model of the store was trained on.

    Args:
        artifact: a ``backbone``, or of a trained stage.
        folds: tell the utterances behind the digests of a fold that names utterances.

    Raises:
        ArtifactError: an artefact that it was made of is gone from the store.
    """
    walk = _Walk(artifact, tuple(folds))
    walk.visit(artifact)
    return walk.lineage()


@dataclass(frozen=True)
class _TrainingSet:
    """Whose recordings a stage used."""

    corpus: str
    speakers: tuple[str, ...]
    utterances: tuple[tuple[str, str], ...]


@dataclass
class _Walk:
    """The artefacts behind one, each visited after its inputs."""

    artifact: Artifact
    folds: tuple[Fold, ...]
    _visited: set[str] = field(default_factory=set)
    _stages: dict[_TrainingSet, list[str]] = field(default_factory=dict)
    _start: Artifact | None = None
    _declared: list[str] = field(default_factory=list)
    _keys: dict[str, ArtifactKey] | None = None

    def visit(self, artifact: Artifact) -> None:
        """Note whose recordings ``artifact`` and everything behind it used."""
        if artifact.identity in self._visited:
            return
        self._visited.add(artifact.identity)
        if artifact.kind == "backbone":
            self._start = artifact
            return
        for identity in artifact.manifest.inputs.values():
            found = self._find(identity, artifact)
            if found.kind not in _CORPORA:
                self.visit(found)
        if artifact.kind == "cluster":
            self._declared += _declared_by(artifact)
        training_set = self._training_set(artifact) if artifact.kind in _TRAINED else None
        if training_set is not None:
            self._stages.setdefault(training_set, []).append(artifact.kind)

    def lineage(self) -> Lineage:
        """Of all that was visited, behind that of the stock model."""
        before = Lineage(start="") if self._start is None else lineage_of_backbone(self._start)
        own = [self._trained_on(found, stages) for found, stages in self._stages.items()]
        codebooks = dict.fromkeys([*before.codebooks, *self._declared])
        return Lineage(
            start=before.start, trained_on=(*before.trained_on, *own), codebooks=tuple(codebooks)
        )

    def _training_set(self, artifact: Artifact) -> _TrainingSet | None:
        manifest = artifact.manifest
        science = manifest.science
        speakers = [
            *cast("list[str]", science.get("speakers", [])),
            *cast("list[str]", science.get("train_speakers", [])),
            *cast("list[str]", science.get("selection_speakers", [])),
        ]
        if speakers:
            digests = {side: science.get(f"{side}_utterances") for side in _SIDES}
            utterances = tuple((side, str(d)) for side, d in digests.items() if d is not None)
            return _TrainingSet(manifest.inputs["corpus"], tuple(sorted({*speakers})), utterances)
        passed_on = _PASSED_ON.get(artifact.kind)
        if passed_on is None:
            return None
        return self._training_set(self._find(manifest.inputs[passed_on], artifact))

    def _trained_on(self, found: _TrainingSet, stages: Sequence[str]) -> TrainedOn:
        corpus = self._find(found.corpus, self.artifact)
        ids = self._utterance_ids(found.utterances)
        rows = rows_of(read_recordings(corpus), found.speakers, ids if found.utterances else None)
        return TrainedOn.of(
            rows,
            stages=stages,
            fold=self.folds[0].name if len(self.folds) == 1 else "",
            corpus=found.corpus,
            adapter=adapter_of(corpus),
            utterances=dict(found.utterances),
            exact=ids is not None or not found.utterances,
        )

    def _utterance_ids(self, utterances: Iterable[tuple[str, str]]) -> frozenset[str] | None:
        """The ids behind the digests; None if a digest is of no fold that is known."""
        return ids_behind(dict(utterances), self.folds)

    def _find(self, identity: str, wanted_by: Artifact) -> Artifact:
        store = self.artifact.store
        if self._keys is None:
            self._keys = {key.fingerprint: key for key in list_artifacts(store)}
            for key in [key for key in self._keys.values() if key.kind in _BY_IDENTITY]:
                artifact = find_artifact(store, key)
                if artifact is not None:
                    self._keys[artifact.identity] = key
        key = self._keys.get(identity)
        found = None if key is None else find_artifact(store, key)
        if found is None:
            raise ArtifactError(
                f"{store.uri}/{self.artifact.key.prefix}: what it was trained on cannot be told, because "
                f"artefact {identity[:12]}, an input of {wanted_by.kind} "
                f"{wanted_by.key.fingerprint[:12]}, is gone from this store; run the configuration that "
                f"made the model again, or use a model whose lineage is known"
            )
        return found


def ids_behind(utterances: Mapping[str, str], folds: Iterable[Fold]) -> frozenset[str] | None:
    """The utterances behind the digests of sides; None if a digest is of none of ``folds``."""
    known: dict[str, frozenset[str]] = {}
    for fold in folds:
        if fold.utterances is not None:
            known |= {
                fold.hashed_utterances(side)[f"{side}_utterances"]: fold.utterances.of(side)
                for side in _SIDES
            }
    if not set(utterances.values()) <= known.keys():
        return None
    return frozenset().union(*(known[digest] for digest in utterances.values()))


def read_recordings(corpus: Artifact) -> pa.Table:
    """utterance_id, speaker and audio_sha256 of every utterance."""
    return corpus.read_part(INDEX_PART, UTTERANCE_SCHEMA, columns=_INDEX_COLUMNS)


def adapter_of(corpus: Artifact) -> str:
    """Who read a corpus; empty for several corpora."""
    config = corpus.manifest.science.get("corpus")
    return str(config.get("adapter", "")) if isinstance(config, dict) else ""


def _declared_by(cluster: Artifact) -> list[str]:
    """What the owners of the imported codebooks of a ``cluster`` artefact declare."""
    config = cast("Mapping[str, object]", cluster.manifest.science["cluster"])
    named = [scale["codebook"] for scale in cast("list[dict[str, object]]", config["scales"])]
    found = [artifact_of(cluster.store, CODEBOOK, str(name)) for name in named if name is not None]
    declared = [declaration_of(artifact) for artifact in found]
    return [d.sentence() for d in declared if d is not None]


def start_sentence(backbone: Artifact, *, transductive: bool) -> str:
    """What is known of the start model, for the protocol of a report."""
    lineage = lineage_of_backbone(backbone)
    model = cast("Mapping[str, object]", backbone.manifest.science["model"])
    if not lineage.trained_on:
        if str(model["source"]).startswith(RANDOM_SOURCE) or lineage.start.startswith("random "):
            return f"The start model has {lineage.start}: it was trained on nothing."
        by_others = "" if lineage.start.startswith("a model ") else "pre-trained by others; "
        return (
            f"The start model is {lineage.start}: {by_others}what it has heard is not known here."
        )
    sentence = f"The start model was trained by gmp-atl from {lineage.start}: {lineage.describe()}."
    if transductive:
        sentence += " No stage of it used emotion labels of the test sets of this run."
    else:
        sentence += " None of these recordings and speakers is in a test set of this run."
    return " ".join([sentence, *lineage.codebooks])


def named_source(config: ModelConfig) -> bool:
    """Whether ``model.source`` is a folder or a URI, whose files can be looked at without a network."""
    source = config.source
    return "://" in source or (
        not source.startswith(RANDOM_SOURCE) and Path(source).expanduser().is_dir()
    )
