"""DeepSpeed behind four verbs: forward, backward-and-step, save, restore.

Known traps, each met here: ``TORCH_FORCE_WEIGHTS_ONLY_LOAD`` because DeepSpeed's checkpoint engine
unpickles whatever it is given; a client AdamW because DeepSpeed's own CPU one compiles for minutes;
the learning rate set from the step alone, so that a resumed schedule cannot drift.
"""

from __future__ import annotations

import logging
import os
import pickle
import warnings
from pathlib import Path

import torch
from torch import nn

from gmp_atl_dist.config import OptimConfig, TrainWorkersConfig
from gmp_atl_dist.device import accelerator, collective_backend, torch_device, use_bf16
from gmp_atl_dist.errors import CheckpointError
from gmp_atl_dist.training.ops import use_ops_folder

_TAG = "state"


def learning_rate(config: OptimConfig, step: int, total_steps: int) -> float:
    """Linear warm-up over ``warmup_fraction`` of the updates, then linear decay to zero."""
    warmup_steps = max(1, round(config.warmup_fraction * total_steps))
    if step < warmup_steps:
        return config.lr * (step + 1) / warmup_steps
    return config.lr * max(total_steps - step, 1) / max(total_steps - warmup_steps, 1)


class Engine:
    """One rank's handle on the sharded model and optimiser."""

    def __init__(
        self,
        model: nn.Module,
        config: OptimConfig,
        workers: TrainWorkersConfig,
        *,
        micro_batch_size: int,
        micro_batches: int,
    ) -> None:
        use_ops_folder()
        os.environ["DS_ACCELERATOR"] = accelerator()
        os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
        import deepspeed
        from deepspeed.utils import logger

        logger.setLevel(logging.WARNING)
        # torch deprecates a collective that DeepSpeed calls at every update.
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
        deepspeed.init_distributed(
            dist_backend=collective_backend(), auto_mpi_discovery=False, verbose=False
        )
        matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
        others = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=config.lr,
            betas=config.betas,
        )
        self._config = config
        self._model = model
        self._optimizer = optimizer
        self._engine, _, _, _ = deepspeed.initialize(
            model=model,
            optimizer=optimizer,  # pyright: ignore[reportArgumentType]
            config={
                "train_micro_batch_size_per_gpu": micro_batch_size,
                "gradient_accumulation_steps": micro_batches,
                "gradient_clipping": config.clip_norm,
                "zero_optimization": {"stage": workers.zero_stage},
                "zero_allow_untested_optimizer": True,
                "zero_force_ds_cpu_optimizer": False,
                "torch_autocast": {"enabled": use_bf16(), "dtype": "bfloat16"},
                "steps_per_print": 10**9,
            },
            dist_init_required=False,
        )
        self.device = torch_device()

    @property
    def module(self) -> nn.Module:
        """The model itself, for evaluation and export. ZeRO up to 2 keeps it whole on each rank."""
        return self._model

    def forward(self, *args: object, **kwargs: object) -> object:
        return self._engine(*args, **kwargs)

    def backward_and_step(self, loss: torch.Tensor) -> None:
        """Add this micro-batch's gradient; after an update's last one, take the update."""
        self._engine.backward(loss)
        self._engine.step()

    def set_learning_rate(self, step: int, total_steps: int) -> float:
        rate = learning_rate(self._config, step, total_steps)
        # DeepSpeed's wrapper shares its groups with the optimiser that it was given.
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        return rate

    def save(self, folder: Path) -> None:
        """This rank's share of model and optimiser."""
        self._engine.save_checkpoint(str(folder), tag=_TAG, save_latest=False)

    def restore(self, folder: Path) -> None:
        """Load what every rank saved; nothing but tensors and plain values is accepted.

        Raises:
            CheckpointError: it cannot be read.
        """
        from deepspeed.runtime.fp16.loss_scaler import LossScaler
        from deepspeed.runtime.zero.config import ZeroStageEnum
        from deepspeed.utils.tensor_fragment import fragment_address

        try:
            with torch.serialization.safe_globals([LossScaler, ZeroStageEnum, fragment_address]):
                path, _ = self._engine.load_checkpoint(str(folder), tag=_TAG)
        except pickle.UnpicklingError as e:
            # torch's own text advises to load it all the same, which would execute it.
            raise CheckpointError(
                f"the checkpoint in {folder.name} is damaged or holds more than tensors and plain "
                f"values, so it was not loaded; delete the run's folder below checkpoints/ to train "
                f"this stage from its beginning"
            ) from e
        except Exception as e:
            raise CheckpointError(
                f"the checkpoint in {folder.name} cannot be read ({type(e).__name__}: {e}); delete "
                f"the run's folder below checkpoints/ to train this stage from its beginning"
            ) from e
        if path is None:
            raise CheckpointError(
                f"the checkpoint in {folder.name} holds no {_TAG!r}; delete the run's folder below "
                f"checkpoints/ to train this stage from its beginning"
            )
