"""Typed configuration. Science is hashed into what a run produces; runtime is not.

``RunConfig`` is one TOML file (``file.py``): every section but ``[runtime]`` is science. Every key has a
default that works, and unknown keys are refused. Nothing here imports torch or ray, so that a
configuration is checked in well under a second.
"""

from gmp_atl_dist.config.corpus import MAX_UTTERANCE_S, AuditConfig, CorpusConfig
from gmp_atl_dist.config.evaluation import EvaluateConfig
from gmp_atl_dist.config.folds import FoldsConfig
from gmp_atl_dist.config.hashing import Added, Json, canonical_json, digest
from gmp_atl_dist.config.model import RANDOM_SOURCE, ModelConfig
from gmp_atl_dist.config.optim import AdaptedConfig, AugmentedConfig, OptimConfig
from gmp_atl_dist.config.pseudo_labels import ClusterConfig, ExtractConfig, LabelConfig, Scale
from gmp_atl_dist.config.run import RunConfig
from gmp_atl_dist.config.runtime import RuntimeConfig
from gmp_atl_dist.config.sections import Fraction, PositiveFloat, PositiveInt, Section, hashed
from gmp_atl_dist.config.sources import AUDIO_FILES, NOBODY, SourceConfig
from gmp_atl_dist.config.trained import (
    FinetuneConfig,
    FramePredictionConfig,
    PretrainConfig,
    RetrainConfig,
    WarmupConfig,
)
from gmp_atl_dist.config.workers import (
    ClusterWorkersConfig,
    ProcessConfig,
    StreamWorkersConfig,
    TrainWorkersConfig,
    WorkersConfig,
)

__all__ = [
    "AUDIO_FILES",
    "MAX_UTTERANCE_S",
    "NOBODY",
    "RANDOM_SOURCE",
    "AdaptedConfig",
    "Added",
    "AuditConfig",
    "AugmentedConfig",
    "ClusterConfig",
    "ClusterWorkersConfig",
    "CorpusConfig",
    "EvaluateConfig",
    "ExtractConfig",
    "FinetuneConfig",
    "FoldsConfig",
    "Fraction",
    "FramePredictionConfig",
    "Json",
    "LabelConfig",
    "ModelConfig",
    "OptimConfig",
    "PositiveFloat",
    "PositiveInt",
    "PretrainConfig",
    "ProcessConfig",
    "RetrainConfig",
    "RunConfig",
    "RuntimeConfig",
    "Scale",
    "Section",
    "SourceConfig",
    "StreamWorkersConfig",
    "TrainWorkersConfig",
    "WarmupConfig",
    "WorkersConfig",
    "canonical_json",
    "digest",
    "hashed",
]
