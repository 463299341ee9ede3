"""DeepSpeed behind four methods: forward, backward_and_step, save, restore.

Four decisions, with their reasons:

- ``TORCH_FORCE_WEIGHTS_ONLY_LOAD`` is set, because DeepSpeed's checkpoint engine unpickles any file.
- AdamW is PyTorch's, because DeepSpeed's own CPU one compiles for minutes.
- The learning rate follows from the step only, so that a resumed schedule cannot drift.
- Gradients are exchanged in fp32. Under ``torch_autocast`` DeepSpeed ignores its own key
  ``communication_data_type``: it exchanges gradients of the modules that it lists in bf16. An empty list
  leaves none.
"""

from __future__ import annotations

import argparse
import importlib
import io
import logging
import os
import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from pathlib import Path

import torch
from torch import nn

from gmp_atl_dist.config import AdaptedConfig, Json, OptimConfig, TrainWorkersConfig
from gmp_atl_dist.device import accelerator, collective_backend, torch_device, use_bf16
from gmp_atl_dist.errors import CheckpointError, ModelError
from gmp_atl_dist.models.backbone import SpeechBackbone
from gmp_atl_dist.seeding import keyed_rng
from gmp_atl_dist.training.groups import adamw, parameter_groups
from gmp_atl_dist.training.missing_shares import allow_missing_shares
from gmp_atl_dist.training.ops import use_ops_folder

TAG = "state"


def learning_rate(config: OptimConfig, step: int, total_steps: int) -> float:
    """Linear warm-up over ``warmup_fraction`` of the updates, then linear decay to zero."""
    warmup_steps = max(1, round(config.warmup_fraction * total_steps))
    if step < warmup_steps:
        return config.lr * (step + 1) / warmup_steps
    return config.lr * max(total_steps - step, 1) / max(total_steps - warmup_steps, 1)


def dropped_layers(config: OptimConfig, num_layers: int, step: int) -> frozenset[int]:
    """The layers, from 1, that pass their input on in update ``step``.

    They are the same for every rank and micro-batch, so an update does not depend on how its batch is cut.
    They follow from the seed and the update, so a resumed training drops the same ones.
    """
    if config.layer_drop == 0:
        return frozenset()
    drawn = keyed_rng("layer drop", config.seed, step).random(num_layers)
    return frozenset(i for i, x in enumerate(drawn.tolist(), 1) if x < config.layer_drop)


def backbone_is_frozen(config: OptimConfig, step: int) -> bool:
    """Whether update ``step``, counted from 0, trains the head alone."""
    return isinstance(config, AdaptedConfig) and step < config.freeze_backbone_steps


def deepspeed_config(
    config: OptimConfig, workers: TrainWorkersConfig, *, passes: int, universal: bool
) -> dict[str, Json]:
    """DeepSpeed's configuration. Weights and the optimiser are fp32; matrix products on a GPU are bf16."""
    autocast: dict[str, Json] = {"enabled": use_bf16(), "dtype": "bfloat16"}
    if workers.gradient_dtype == "fp32":
        autocast["lower_precision_safe_modules"] = []
    return {
        # Only for DeepSpeed's own accounting: losses are normalised before they reach it.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": passes,
        "gradient_clipping": config.clip_norm,
        "zero_optimization": {"stage": workers.zero_stage},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "torch_autocast": autocast,
        "steps_per_print": 10**9,
        "checkpoint": {"load_universal": universal},
    }


class Engine:
    """The sharded model and optimiser of one rank."""

    def __init__(
        self,
        model: nn.Module,
        backbone: SpeechBackbone,
        config: OptimConfig,
        workers: TrainWorkersConfig,
        *,
        passes: int,
        universal: bool = False,
    ) -> None:
        """Start DeepSpeed.

        Args:
            model: what to train.
            backbone: the part of it that is not the head.
            config: the optimiser's part of it is read.
            workers: the ZeRO stage and the time limit of collectives.
            passes: forward passes per update.
            universal: :meth:`restore` will load what :func:`make_universal` wrote.

        Raises:
            ModelError: every parameter of the model is frozen.
        """
        if not any(p.requires_grad for p in model.parameters()):
            raise ModelError(
                f"all {sum(1 for _ in model.parameters())} parameters of the "
                f"{type(model).__name__} are frozen, so there is nothing to train; leave its head "
                f"unfrozen (requires_grad) in the recipe's build"
            )
        _before_deepspeed()
        import deepspeed
        from deepspeed.utils import logger

        _import_muon_uncompiled()
        logger.setLevel(logging.WARNING)
        # torch deprecates a collective that DeepSpeed calls at every update.
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
        deepspeed.init_distributed(
            dist_backend=collective_backend(),
            auto_mpi_discovery=False,
            verbose=False,
            timeout=timedelta(seconds=workers.collective_timeout_s),
        )
        self._groups = parameter_groups(model, backbone, config)
        optimizer = adamw(self._groups, config)
        self._config = config
        self._model = model
        self._backbone = backbone
        self._optimizer = optimizer
        self._engine, _, _, _ = deepspeed.initialize(
            model=model,
            optimizer=optimizer,  # pyright: ignore[reportArgumentType]
            config=deepspeed_config(config, workers, passes=passes, universal=universal),
            dist_init_required=False,
        )
        if universal and workers.zero_stage < 3:
            allow_missing_shares(self._engine.optimizer)
        self.device = torch_device()

    @property
    def model(self) -> nn.Module:
        """The model that was given. With ZeRO 3, its weights are complete within its own calls alone."""
        return self._model

    def train(self) -> None:
        """Turn dropout on."""
        self._model.train()

    @contextmanager
    def gathered(self, build: Callable[[], nn.Module]) -> Iterator[nn.Module]:
        """The model with all its weights, in evaluation mode. Every rank must call it.

        With ZeRO 3, a rank holds a share of each weight. Forward passes gather the layers one by one, and
        all ranks must make the same passes. So with ZeRO 3 this is a copy in the model that ``build`` makes.
        """
        if self._engine.zero_optimization_stage() < 3:
            self._model.eval()
            yield self._model
            self._model.train()
            return
        from deepspeed.runtime.zero import GatheredParameters

        with GatheredParameters(list(self._model.parameters())):
            weights = {n: w.detach().clone() for n, w in self._model.state_dict().items()}
        copy = build().to(self.device)
        copy.load_state_dict(weights)
        yield copy.eval()

    def forward(self, *args: object, **kwargs: object) -> object:
        return self._engine(*args, **kwargs)

    def backward_and_step(self, loss: torch.Tensor) -> None:
        """Add this micro-batch's gradient; after an update's last one, take the update.

        If the norm of the gradient over all ranks is not finite, DeepSpeed skips the update on all of them.
        A loss that is not finite on one rank has the same effect.
        """
        if not torch.isfinite(loss):
            # Its gradient could be finite nevertheless, e.g. if the inf came from a constant.
            loss = loss * float("nan")
        self._engine.backward(loss)
        self._engine.step()

    @property
    def skipped_updates(self) -> int:
        """The same on every rank."""
        return int(self._engine.skipped_steps)

    @property
    def gradient_norm(self) -> float:
        """Of the last update, over all ranks, before clipping."""
        return float(self._engine.get_global_grad_norm() or 0.0)

    def start_update(self, step: int, total_steps: int) -> None:
        """Set what the optimiser and the backbone do in update ``step``, counted from 0."""
        rate = learning_rate(self._config, step, total_steps)
        frozen = backbone_is_frozen(self._config, step)
        # DeepSpeed's wrapper shares its groups with the optimiser that it was given.
        for group, values in zip(self._groups, self._optimizer.param_groups, strict=True):
            values["lr"] = group.learning_rate(rate, frozen)
            values["frozen"] = frozen and group.freezes
        self._backbone.gradient_blocked = frozen
        self._backbone.dropped_layers = dropped_layers(
            self._config, self._backbone.num_layers, step
        )

    @property
    def learning_rates(self) -> dict[str, float]:
        """The rates that the optimiser has, by the name of their metric.

        ``learning_rate`` is that of the last layer, 0 while the backbone is frozen. Where the head's is
        another one, ``head_learning_rate`` is there too.
        """
        rates = [float(values["lr"]) for values in self._optimizer.param_groups]
        of_groups = list(zip(self._groups, rates, strict=True))
        head = [rate for group, rate in of_groups if group.has_head]
        backbone = [rate for group, rate in of_groups if group.has_backbone]
        found = {"learning_rate": max(backbone or head)}
        if head and any(not group.has_backbone for group in self._groups):
            found["head_learning_rate"] = max(head)
        return found

    def save(self, folder: Path) -> None:
        """Write this rank's share of the model and the optimiser."""
        self._engine.save_checkpoint(str(folder), tag=TAG, save_latest=False)

    def restore(self, folder: Path) -> None:
        """Load what every rank saved. Only tensors and plain values are accepted.

        Raises:
            CheckpointError: it cannot be read.
        """
        with _loading(folder):
            path, _ = self._engine.load_checkpoint(str(folder), tag=TAG)
            if path is None:
                raise FileNotFoundError(f"it holds no {TAG!r}")


def make_universal(folder: Path, out: Path) -> None:
    """Write the universal form of the checkpoint in ``folder`` to ``out``. Any number of ranks can load it.

    https://www.deepspeed.ai/tutorials/universal-checkpointing/

    Raises:
        CheckpointError: it cannot be read.
    """
    _before_deepspeed()
    from deepspeed.checkpoint import ds_to_universal

    options = argparse.Namespace(
        input_folder=str(folder / TAG),
        output_folder=str(out / TAG),
        num_extract_workers=1,  # more would be forked from a process that has threads
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    with _loading(folder), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        ds_to_universal.main(options)


def _before_deepspeed() -> None:
    use_ops_folder()
    os.environ["DS_ACCELERATOR"] = accelerator()
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"


def _import_muon_uncompiled() -> None:
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


@contextmanager
def _loading(folder: Path) -> Iterator[None]:
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    advice = "delete the run's folder below checkpoints/ to train this stage from its start"
    try:
        with torch.serialization.safe_globals([LossScaler, ZeroStageEnum, fragment_address]):
            yield
    except pickle.UnpicklingError as e:
        # PyTorch's own message advises to load it anyway, which would execute it.
        raise CheckpointError(
            f"the checkpoint in {folder.name} is damaged or holds more than tensors and plain "
            f"values, so it was not loaded; {advice}"
        ) from e
    except Exception as e:
        raise CheckpointError(
            f"the checkpoint in {folder.name} cannot be read ({type(e).__name__}: {e}); {advice}"
        ) from e
