"""A whole configuration, and the checks that concern several of its sections."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import model_validator

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


class RunConfig(Section):
    """A whole experiment."""

    corpus: CorpusConfig = CorpusConfig()
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

    @property
    def needs_gender(self) -> bool:
        """Whether a run uses the speakers' gender. Without, a corpus need not tell it."""
        cluster = self.cluster
        return (
            self.warmup.gender_weight > 0 or cluster.gender != "none" or cluster.balance == "gender"
        )

    @property
    def not_science(self) -> set[str]:
        """Sections that are not hashed. Without pretraining, nothing that is configured for it is."""
        return {"runtime"} if self.pretrain.iterations else {"runtime", "pretrain"}

    def science(self) -> dict[str, Json]:
        """Everything that is hashed."""
        return hashed(self, exclude=self.not_science)
