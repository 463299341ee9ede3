"""A whole configuration, and the checks that concern several of its sections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from gmp_atl_dist.config.corpus import AuditConfig, CorpusConfig
from gmp_atl_dist.config.evaluation import EvaluateConfig
from gmp_atl_dist.config.folds import FoldsConfig
from gmp_atl_dist.config.hashing import Added, Json
from gmp_atl_dist.config.model import RANDOM_SOURCE, ModelConfig
from gmp_atl_dist.config.optim import OptimConfig
from gmp_atl_dist.config.pseudo_labels import ClusterConfig, ExtractConfig, LabelConfig
from gmp_atl_dist.config.runtime import RuntimeConfig
from gmp_atl_dist.config.sections import Section, hashed
from gmp_atl_dist.config.sources import AUDIO_FILES, SourceConfig, problems_of_sources
from gmp_atl_dist.config.trained import FinetuneConfig, PretrainConfig, RetrainConfig, WarmupConfig

SEEDED = ("model", "pretrain", "warmup", "cluster", "retrain", "finetune")
"""Sections of fitted stages, whose seeds follow ``seed``."""


class RunConfig(Section):
    """A whole experiment."""

    seed: int | None = Field(
        default=None,
        description="random seed of all that is fitted: model (of random:SIZE), pretrain, warmup, cluster, "
        "retrain and finetune, where a section gives no seed of its own. folds.seed and evaluate.seed do "
        "not follow it, so the test set and the resampling stay the same. Unset: the seed of each section",
    )
    corpus: CorpusConfig = CorpusConfig()
    corpora: Annotated[tuple[SourceConfig, ...], Added("0.4.0", left_out_at=())] = Field(
        default=(),
        description="several corpora in one run, each with the keys of [corpus] and those below; they "
        "share corpus.emotions. Where they lie is runtime.corpora",
    )
    folds: FoldsConfig = FoldsConfig()
    model: ModelConfig = ModelConfig()
    pretrain: PretrainConfig = PretrainConfig()
    warmup: WarmupConfig = WarmupConfig()
    extract: ExtractConfig = ExtractConfig()
    cluster: ClusterConfig = ClusterConfig()
    label: LabelConfig = LabelConfig()
    retrain: RetrainConfig = RetrainConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    audit: Annotated[AuditConfig, Added("0.4.0", left_out_at=AuditConfig())] = AuditConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @model_serializer(mode="wrap")
    def _without_added_defaults(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        """A run of one corpus is written as it was before there could be several."""
        values = super()._without_added_defaults(handler, info)
        if not self.corpora:
            values.pop("corpora", None)
        return values

    @model_validator(mode="before")
    @classmethod
    def _seed_reaches_sections(cls, raw: object) -> object:
        """Each stage hashes its own section, so the seed is put there, and is not hashed itself."""
        seed = raw.get("seed") if isinstance(raw, Mapping) else None
        if not isinstance(raw, Mapping) or type(seed) is not int:
            return raw
        given = dict(raw)
        for name in SEEDED:
            section = given.get(name, {})
            if isinstance(section, Section):
                if "seed" not in section.model_fields_set:
                    given[name] = section.model_copy(update={"seed": seed})
            elif isinstance(section, Mapping) and "seed" not in section:
                given[name] = {**section, "seed": seed}
        # The seed of a checkpoint from elsewhere is not used, and would only change its fingerprint.
        model = given["model"]
        source = model.get("source") if isinstance(model, Mapping) else getattr(model, "source", "")
        if not str(source or "").startswith(RANDOM_SOURCE):
            given.pop("model")
            given |= {"model": raw["model"]} if "model" in raw else {}
        return given

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.makes_labels:
            self._check_labels()
        if not self.uses_unlabelled_audio and self.folds.protocol == "transductive":
            raise ValueError(
                f"folds.protocol: 'transductive' lets pretraining, clustering and retraining use test "
                f"audio, and an arm with finetune.start = {self.finetune.start!r} runs none of them; "
                f"set 'clean', or finetune.start = 'retrain'"
            )
        if self.finetune.select == "valid" and self.folds.valid == "none":
            raise ValueError(
                "finetune.select: 'valid' needs speakers to select on; set folds.valid = 'next'"
            )
        weights, scales = self.retrain.scale_weights, self.cluster.scales
        if weights and len(weights) != len(scales):
            raise ValueError(
                f"retrain.scale_weights: {len(weights)} weights for {len(scales)} cluster.scales; give one "
                f"weight for each scale, in their order"
            )
        self._check_pretraining()
        self._check_sources()
        train = self.runtime.train
        for name in self.trained_sections:
            optim: OptimConfig = getattr(self, name)
            if optim.micro_batches < train.max_workers:
                raise ValueError(
                    f"{name}.micro_batches = {optim.micro_batches} leaves some of "
                    f"runtime.train.workers = {train.max_workers} without anything to do; raise it, "
                    f"best to a multiple of the workers"
                )
        return self

    def _check_labels(self) -> None:
        layers = list(self.extract.layers)
        for i, scale in enumerate(self.cluster.scales):
            if scale.layer not in layers:
                raise ValueError(
                    f"cluster.scales[{i}].layer: {scale.layer} is not in extract.layers {layers}; "
                    f"add it there"
                )
        gender, weight = self.cluster.gender, self.warmup.gender_weight
        if self.extract.of == "backbone":
            if gender == "multitask":
                raise ValueError(
                    "cluster.gender: 'multitask' means that gender reaches the codebooks through a "
                    "warmed-up model, and extract.of = 'backbone' clusters the features of one that was "
                    "not; set cluster.gender = 'none' or 'by_gender', or extract.of = 'warmup'"
                )
        elif (gender == "none") != (weight == 0) and gender != "by_gender":
            raise ValueError(
                f"cluster.gender: {gender!r} with warmup.gender_weight = {weight:g}; "
                f"'none' goes with warmup.gender_weight = 0, 'multitask' with more than that"
            )

    def _check_pretraining(self) -> None:
        if not self.pretrain.iterations:
            return
        if not self.model.source.startswith(RANDOM_SOURCE):
            raise ValueError(
                f"pretrain.iterations: {self.pretrain.iterations} with model.source = "
                f"{self.model.source!r}: pretraining begins with random weights, and those of a "
                f"checkpoint would be lost; set model.source = 'random:small' (or tiny, mini, base, "
                f"large), or pretrain.iterations = 0"
            )
        if self.pretrain.freeze_conv:
            raise ValueError(
                "pretrain.freeze_conv: true would leave the convolutions random for good; set it to "
                "false"
            )

    def _check_sources(self) -> None:
        problems = problems_of_sources(self.corpus, self.corpora, self.runtime.corpora)
        if self.folds.by == "corpus" and not self.corpora:
            problems.append("folds.by: 'corpus' holds out one of [[corpora]], and there are none")
        unlabelled = [source.name for source in self.corpora if not source.is_labelled]
        adapted = [s.name for s in self.corpora if not s.is_labelled and s.is_adapted_to]
        if self.retrain.unlabelled_share is not None and not adapted:
            problems.append(
                f"retrain.unlabelled_share: {self.retrain.unlabelled_share:g} without a source of "
                f"[[corpora]] with role = 'unlabelled' and use = 'pseudo_labels'; add one, or remove "
                f"this key"
            )
        if not self.pretrain.iterations:
            problems += [
                f"corpora[{i}].use: 'pretrain' with pretrain.iterations = 0 leaves {source.name} unused; "
                f"raise pretrain.iterations, or remove the source"
                for i, source in enumerate(self.corpora)
                if not source.is_labelled and not source.is_adapted_to
            ]
        if self.cluster.balance == "emotion" and adapted:
            problems.append(
                f"cluster.balance: 'emotion' needs the emotion of every frame, and {adapted[0]} is "
                f"unlabelled; set 'speaker' or 'none'"
            )
        untold = [s.name for s in self.corpora if s.adapter == AUDIO_FILES and s.is_adapted_to]
        if untold and self.needs_gender_of_unlabelled and not self.predicts_gender:
            problems.append(
                f"warmup.gender_weight: 0 leaves the gender of {untold[0]} unknown, which is unlabelled and "
                f"tells none; raise it, so that the warmed-up model predicts it. Or use neither "
                f"cluster.gender = 'by_gender' nor cluster.balance = 'gender'"
            )
        if self.corpora and self.folds.lists:
            problems.append(
                "folds.lists: lists are of one corpus, and ids of several begin with the name of their "
                "source; use folds.by, or run that corpus alone"
            )
        if unlabelled and self.folds.protocol == "speaker_dependent":
            problems.append(
                f"folds.protocol: 'speaker_dependent' tells utterances of labelled speech apart, and "
                f"{unlabelled[0]} is unlabelled; leave that source out"
            )
        if problems:
            raise ValueError("\n  - ".join(problems))

    @property
    def makes_labels(self) -> bool:
        """Whether the arm makes pseudo-labels and retrains on them: ``extract`` to ``retrain``."""
        return self.finetune.start == "retrain"

    @property
    def warms_up(self) -> bool:
        """Whether some stage needs the warmed-up model."""
        for_labels = self.makes_labels and (self.extract.of == "warmup" or self.predicts_gender)
        return for_labels or self.finetune.start == "warmup"

    @property
    def uses_unlabelled_audio(self) -> bool:
        """Whether some stage learns from audio without its emotion labels."""
        return self.makes_labels or self.pretrain.iterations > 0

    @property
    def trained_sections(self) -> tuple[str, ...]:
        """The sections of the trained stages that run, in order."""
        runs = {
            "pretrain": self.pretrain.iterations > 0,
            "warmup": self.warms_up,
            "retrain": self.makes_labels,
            "finetune": True,
        }
        return tuple(name for name, is_run in runs.items() if is_run)

    @property
    def unused_workers(self) -> tuple[str, ...]:
        """The sections of ``runtime`` whose workers no stage of this arm starts."""
        return () if self.uses_unlabelled_audio else ("cluster", "label")

    @property
    def needs_gender(self) -> bool:
        """Whether a run uses the speakers' gender. Without, a corpus need not tell it."""
        cluster = self.cluster
        by_labels = cluster.gender != "none" or cluster.balance == "gender"
        by_warmup = self.warms_up and self.warmup.gender_weight > 0
        return by_warmup or (self.makes_labels and by_labels)

    @property
    def needs_gender_of_unlabelled(self) -> bool:
        """Whether clusters or their sample depend on the gender of speech without labels as well."""
        cluster = self.cluster
        return self.makes_labels and (cluster.gender == "by_gender" or cluster.balance == "gender")

    @property
    def predicts_gender(self) -> bool:
        """Whether the warmed-up model predicts the gender of unlabelled speech that tells none."""
        unlabelled = any(not s.is_labelled and s.is_adapted_to for s in self.corpora)
        return unlabelled and self.needs_gender_of_unlabelled and self.warmup.gender_weight > 0

    @property
    def not_science(self) -> set[str]:
        """What is not hashed: all that is configured for stages which are not run.

        ``seed`` is part of the sections that follow it.
        """
        sections = {"pretrain", "warmup", "retrain"} - set(self.trained_sections)
        sections |= set() if self.makes_labels else {"extract", "cluster", "label"}
        return {"runtime", "seed"} | sections

    def science(self) -> dict[str, Json]:
        """Everything that is hashed."""
        return hashed(self, exclude=self.not_science)
