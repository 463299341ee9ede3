"""DeepSpeed's configuration, and what must be set before it is imported."""

from __future__ import annotations

import importlib
import os

from gmp_atl_dist.config import Json, OptimConfig, TrainWorkersConfig
from gmp_atl_dist.device import accelerator, has_gpu, use_bf16
from gmp_atl_dist.training.ops import end_stale_builds, use_ops_folder

_BUCKETS = 8
_MIN_BUCKET = 4_000_000
_MAX_BUCKET = 50_000_000


def deepspeed_config(
    config: OptimConfig,
    workers: TrainWorkersConfig,
    *,
    passes: int,
    universal: bool,
    trained: int,
    world_size: int,
) -> dict[str, Json]:
    """DeepSpeed's configuration. Weights and the optimiser are fp32; matrix products on a GPU are bf16.

    Args:
        config: the optimiser's part of it is read.
        workers: the ZeRO stage and the type of exchanged gradients.
        passes: forward passes per update.
        universal: a universal checkpoint will be loaded.
        trained: numbers in the weights that are trained.
        world_size: of the gang.
    """
    autocast: dict[str, Json] = {"enabled": use_bf16(), "dtype": "bfloat16"}
    if workers.gradient_dtype == "fp32":
        autocast["lower_precision_safe_modules"] = []
    zero: dict[str, Json] = {
        "stage": workers.zero_stage,
        "reduce_bucket_size": bucket_size(trained),
    }
    if workers.zero_stage < 3:
        # On a CPU the cores that would communicate meanwhile are those that compute.
        zero["overlap_comm"] = has_gpu() and world_size > 1
    return {
        # Only for DeepSpeed's own accounting: losses are normalised before they reach it.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": passes,
        "gradient_clipping": config.clip_norm,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "torch_autocast": autocast,
        "steps_per_print": 10**9,
        "checkpoint": {"load_universal": universal},
    }


def bucket_size(trained: int) -> int:
    """Numbers of gradients that are exchanged at once, for a model of ``trained`` trained numbers.

    The first buckets are exchanged while the backward pass computes the rest, so there must be several. A
    small one does not fill the network. DeepSpeed's default is 500 million: one bucket of 2 GB, which is
    exchanged when the whole backward pass is done, and which ZeRO 3 allocates on every device at its start.
    HuBERT-base has buckets of 47 MB by this rule, and large of 158 MB.
    """
    return min(max(trained // _BUCKETS, _MIN_BUCKET), _MAX_BUCKET)


def before_deepspeed() -> None:
    """Set what DeepSpeed reads when it is imported."""
    end_stale_builds(use_ops_folder())
    os.environ["DS_ACCELERATOR"] = accelerator()
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"


def import_muon_uncompiled() -> None:
    """Import DeepSpeed's Muon optimizer without compiling it.

    DeepSpeed imports it only to test whether our optimizer is one. The ``torch.compile`` at that import
    loads all of PyTorch's compiler, which takes four seconds of every worker's start.
    """
    from deepspeed.runtime import compiler

    compile_, compiler.compile = compiler.compile, lambda: lambda function: function
    try:
        importlib.import_module("deepspeed.runtime.zero.muon.muon_optimizer")
    finally:
        compiler.compile = compile_
