"""What workers import: the server that forks them on a Ray of this machine imports it in advance."""

from __future__ import annotations

import sys

from gmp_atl_dist.config import RuntimeConfig

_OF_RAY = (
    "pandas",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "google.protobuf.descriptor_pb2",
    "jsonschema",
    "requests",
    "fsspec",
)
"""What Ray imports besides itself, as far as that takes time."""
_EVERYWHERE = (
    *_OF_RAY,
    "transformers.models.hubert.modeling_hubert",
    "gmp_atl_dist.training.loop",
    "gmp_atl_dist.recipes.warmup",
    "gmp_atl_dist.recipes.retrain",
    "gmp_atl_dist.recipes.finetune",
    "gmp_atl_dist.inference.extractor",
    "gmp_atl_dist.inference.labeller",
    "gmp_atl_dist.inference.predictor",
    "gmp_atl_dist.stages.ingest_worker",
)
"""None of these imports Ray, looks for a GPU, or starts a thread."""
_ON_CPUS = "gmp_atl_dist.training.deepspeed_on_cpu"


def preloaded(settings: RuntimeConfig) -> tuple[str, ...]:
    """The modules for a run with these settings; none if ``runtime.fork_workers`` is off.

    None either on other systems than Linux: a fork ends with its raylet by a descriptor of that process.
    """
    if not settings.fork_workers or sys.platform != "linux":
        return ()
    # DeepSpeed may ask for GPUs at its import, and CUDA does not work in a fork of a process that has.
    return _EVERYWHERE if settings.train.gpus else (*_EVERYWHERE, _ON_CPUS)
