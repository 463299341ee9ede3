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

from gmp_atl_dist.config.hashing import Added, Json
from gmp_atl_dist.config.runtime import RuntimeConfig
from gmp_atl_dist.config.science import (
    RANDOM_SOURCE,
    AuditConfig,
    ClusterConfig,
    CorpusConfig,
    EvaluateConfig,
    ExtractConfig,
    FinetuneConfig,
    FoldsConfig,
    LabelConfig,
    ModelConfig,
    OptimConfig,
    PretrainConfig,
    RetrainConfig,
    WarmupConfig,
)
from gmp_atl_dist.config.sections import Section, hashed
from gmp_atl_dist.config.sources import AUDIO_FILES, SourceConfig, problems_of_sources

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
        layers = list(self.extract.layers)
        for i, scale in enumerate(self.cluster.scales):
            if scale.layer not in layers:
                raise ValueError(
                    f"cluster.scales[{i}].layer: {scale.layer} is not in extract.layers {layers}; "
                    f"add it there"
                )
        weight = self.warmup.gender_weight
        if (self.cluster.gender == "none") != (weight == 0) and self.cluster.gender != "by_gender":
            raise ValueError(
                f"cluster.gender: {self.cluster.gender!r} with warmup.gender_weight = {weight:g}; "
                f"'none' goes with warmup.gender_weight = 0, 'multitask' with more than that"
            )
        if self.finetune.select == "valid" and self.folds.valid == "none":
            raise ValueError(
                "finetune.select: 'valid' needs speakers to select on; set folds.valid = 'next'"
            )
        self._check_pretraining()
        self._check_sources()
        train = self.runtime.train
        trained = ("pretrain", "warmup", "retrain", "finetune")
        for name in trained if self.pretrain.iterations else trained[1:]:
            optim: OptimConfig = getattr(self, name)
            if optim.micro_batches < train.max_workers:
                raise ValueError(
                    f"{name}.micro_batches = {optim.micro_batches} leaves some of "
                    f"runtime.train.workers = {train.max_workers} without anything to do; raise it, "
                    f"best to a multiple of the workers"
                )
        return self

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
        if self.retrain.unlabelled_share is not None and not unlabelled:
            problems.append(
                f"retrain.unlabelled_share: {self.retrain.unlabelled_share:g} without a source of "
                f"[[corpora]] with role = 'unlabelled'; add one, or remove this key"
            )
        if self.cluster.balance == "emotion" and unlabelled:
            problems.append(
                f"cluster.balance: 'emotion' needs the emotion of every frame, and {unlabelled[0]} is "
                f"unlabelled; set 'speaker' or 'none'"
            )
        untold = [source.name for source in self.corpora if source.adapter == AUDIO_FILES]
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
    def needs_gender(self) -> bool:
        """Whether a run uses the speakers' gender. Without, a corpus need not tell it."""
        cluster = self.cluster
        return (
            self.warmup.gender_weight > 0 or cluster.gender != "none" or cluster.balance == "gender"
        )

    @property
    def needs_gender_of_unlabelled(self) -> bool:
        """Whether clusters or their sample depend on the gender of speech without labels as well."""
        return self.cluster.gender == "by_gender" or self.cluster.balance == "gender"

    @property
    def predicts_gender(self) -> bool:
        """Whether the warmed-up model predicts the gender of unlabelled speech that tells none."""
        unlabelled = any(not source.is_labelled for source in self.corpora)
        return unlabelled and self.needs_gender_of_unlabelled and self.warmup.gender_weight > 0

    @property
    def not_science(self) -> set[str]:
        """What is not hashed. Without pretraining, nothing that is configured for it is; ``seed`` is part of
        the sections that follow it."""
        outside = {"runtime", "seed"}
        return outside if self.pretrain.iterations else outside | {"pretrain"}

    def science(self) -> dict[str, Json]:
        """Everything that is hashed."""
        return hashed(self, exclude=self.not_science)
