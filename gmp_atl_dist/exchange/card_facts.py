"""The facts of a model card, read from the artefacts of a fold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from statistics import median
from typing import Self

from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.corpora.names import corpus_name
from gmp_atl_dist.models.head_registry import AM_SOFTMAX, ATTENTIVE
from gmp_atl_dist.records import Channel, StoredUtterance
from gmp_atl_dist.report.content import Outcome
from gmp_atl_dist.report.corpus_content import CorpusContent
from gmp_atl_dist.report.protocol import Protocol
from gmp_atl_dist.stages.base import Pending
from gmp_atl_dist.stages.evaluate import read_predictions
from gmp_atl_dist.stages.fold_artifacts import FoldArtifacts
from gmp_atl_dist.stages.report import outcome_of
from gmp_atl_dist.stages.report_corpus import corpus_content
from gmp_atl_dist.stages.report_protocol import protocol_of
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.readers import read_channel, read_emotions, read_utterances
from gmp_atl_dist.store.runs import RunRecord
from gmp_atl_dist.wording import counted

_VERSIONS_OF = ("torch", "transformers", "safetensors")


@dataclass(frozen=True)
class SetSize:
    """The size of a fold's training set or test set, and the lengths of its utterances."""

    num_utterances: int
    num_speakers: int
    hours: float
    median_s: float
    longest_s: float

    @classmethod
    def of(cls, utterances: tuple[StoredUtterance, ...]) -> Self:
        lengths_s = [u.num_samples / SAMPLE_RATE_HZ for u in utterances] or [0.0]
        speakers = len({u.speaker for u in utterances})
        hours = sum(lengths_s) / 3600
        return cls(len(utterances), speakers, hours, median(lengths_s), max(lengths_s))

    def describe(self) -> str:
        """``24 utterances of 6 speakers, 0.02 h``."""
        return (
            f"{counted(self.num_utterances, 'utterance')} of {counted(self.num_speakers, 'speaker')}, "
            f"{self.hours:.3g} h"
        )


@dataclass(frozen=True)
class CardLineage:
    """What of the method lies behind a model, as far as a card's first sentence says it.

    Attributes:
        start: ``finetune.start``.
        label_model: ``extract.of``.
        gender: ``cluster.gender``.
        warm_up_gender: whether the warm-up learnt gender.
        frozen: whether the backbone was left as it was in fine-tuning.
    """

    start: str
    label_model: str
    gender: str
    warm_up_gender: bool
    frozen: bool

    @classmethod
    def of(cls, config: RunConfig) -> Self:
        return cls(
            start=config.finetune.start,
            label_model=config.extract.of,
            gender=config.cluster.gender,
            warm_up_gender=config.warmup.gender_weight > 0,
            frozen=config.finetune.freeze_backbone,
        )


@dataclass(frozen=True)
class CardFacts:
    """All facts of a card. ``outcome`` is None if the fold was not evaluated."""

    stage: str
    fold: str
    base_model: str | None
    """A hub id; None if the stock model came from elsewhere."""
    base_sentence: str
    corpus: CorpusContent
    emotions: tuple[str, ...]
    protocol: Protocol
    training_set: SetSize
    test_set: SetSize
    outcome: Outcome | None
    max_utterance_s: float
    pads_exactly: bool
    pooling: str
    loss: str
    identities: Mapping[str, str]
    """Of the artefact and its inputs; that of a fold's artefact is its fingerprint."""
    versions: Mapping[str, str]
    channel: Channel
    lineage: CardLineage
    corpus_name: str
    """What people call the corpus."""
    run_name: str = ""
    """Empty if the run is not recorded."""

    @classmethod
    def of(
        cls,
        config: RunConfig,
        corpus: Artifact,
        backbone: Artifact,
        made: FoldArtifacts,
        artifact: Artifact,
        model_config: Mapping[str, object],
        run: RunRecord | None = None,
    ) -> Self:
        """The facts about ``artifact``, which is one of ``made`` or the backbone.

        Args:
            run: the record of the run that made it.
        """
        stage, utterances = artifact.key.kind, read_utterances(corpus)
        emotions = read_emotions(corpus)
        transductive = stage == "retrain" and config.folds.trains_on_test_audio
        sides = ("train", "valid", "test") if transductive else ("train",)
        outcome = None
        evaluated = stage in ("finetune", config.finetune.start) and stage != "backbone"
        if evaluated and not isinstance(made.handles["evaluate"], Pending):
            outcome = outcome_of(
                read_predictions(made.artifact("evaluate")), emotions, config.evaluate
            )
        base_model, base_sentence = _base(config, backbone)
        optim = {"finetune": config.finetune, "retrain": config.retrain, "warmup": config.warmup}
        packages = {name: version(name) for name in ("gmp_atl_dist", *_VERSIONS_OF)}
        return cls(
            stage=stage,
            fold=made.fold.name,
            base_model=base_model,
            base_sentence=base_sentence,
            corpus=corpus_content(config, corpus),
            emotions=emotions,
            protocol=protocol_of(config, backbone),
            training_set=SetSize.of(made.fold.select(utterances, *sides)),
            test_set=SetSize.of(made.fold.select(utterances, "test")),
            outcome=outcome,
            max_utterance_s=optim[stage].max_utterance_s if stage in optim else 0.0,
            pads_exactly=stage == "finetune" or model_config["feat_extract_norm"] == "layer",
            pooling=str(model_config.get("pooling", ATTENTIVE)),
            loss=str(model_config.get("loss", AM_SOFTMAX)),
            lineage=CardLineage.of(config),
            identities=_identities(corpus, backbone, made, artifact),
            versions=packages,
            channel=read_channel(corpus),
            corpus_name=corpus_name(config) if run is None else run.corpus_name,
            run_name="" if run is None else run.name,
        )

    @property
    def title(self) -> str:
        fold = "" if self.stage == "backbone" else f"-{self.fold}"
        # A name of the hub: letters, digits, '-', '_' and '.'; of any other script nothing would be left.
        corpus = (
            re.sub(r"[^A-Za-z0-9._]+", "-", self.corpus_name).strip("-.") or self.corpus.adapter
        )
        return f"gmp-atl-{corpus}-{self.stage}{fold}"


def _base(config: RunConfig, backbone: Artifact) -> tuple[str | None, str]:
    source = config.model.source
    # Only a model from a folder or a URI has a listing. Its path is private and not shown.
    if backbone.manifest.science.get("listing") is not None:
        return None, (
            "It started from a HuBERT in a private folder, of which only the identity (sha256 of its "
            "files) is given here."
        )
    if source.startswith("random:"):
        return None, (
            f"It started from **random weights** of size {source.removeprefix('random:')}, seed "
            f"{config.model.seed}, not from a pre-trained HuBERT."
        )
    return source, f"It started from {source}, revision {config.model.revision}."


def _identities(
    corpus: Artifact, backbone: Artifact, made: FoldArtifacts, artifact: Artifact
) -> dict[str, str]:
    """Identities of the artefact, of all its inputs, and of the evaluation of its fold."""
    shared = {corpus.kind: corpus.identity, "backbone": backbone.identity}
    own = {name: handle.identity for name, handle in made.handles.items()}
    order = [*shared, *own]
    last = order.index(artifact.key.kind)
    identities = {name: (shared | own)[name] for name in order[: last + 1]}
    if artifact.key.kind == "finetune" and not isinstance(made.handles["evaluate"], Pending):
        identities["evaluate"] = own["evaluate"]
    return {"backbone": backbone.identity} if artifact.key.kind == "backbone" else identities
