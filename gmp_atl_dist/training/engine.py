"""DeepSpeed behind few methods: forward, backward, step, save, restore.

Four decisions, with their reasons:

- ``TORCH_FORCE_WEIGHTS_ONLY_LOAD`` is set, because DeepSpeed's checkpoint engine unpickles any file.
- AdamW is PyTorch's, because DeepSpeed's own ones are compiled for minutes.
- The learning rate follows from the step only, so that a resumed schedule cannot drift.
- Gradients are exchanged in fp32. Under ``torch_autocast`` DeepSpeed ignores its own key
  ``communication_data_type``: it exchanges gradients of the modules that it lists in bf16. An empty list
  leaves none.

With ZeRO 1 and 2 the host waits for the device once an update: for whether the gradient's norm is finite.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from gmp_atl_dist.config import OptimConfig, TrainWorkersConfig
from gmp_atl_dist.device import collective_backend, has_gpu, torch_device
from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.models.backbone import SpeechBackbone
from gmp_atl_dist.training.deepspeed_start import (
    before_deepspeed,
    deepspeed_config,
    import_muon_uncompiled,
)
from gmp_atl_dist.training.grad_norm import look_once
from gmp_atl_dist.training.groups import adamw, parameter_groups, use_kernels
from gmp_atl_dist.training.missing_shares import allow_missing_shares
from gmp_atl_dist.training.schedule import backbone_is_frozen, dropped_layers, learning_rate
from gmp_atl_dist.training.universal import TAG, loading, store_as_plain_values


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
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        if not trained:
            raise ModelError(
                f"all {sum(1 for _ in model.parameters())} parameters of the "
                f"{type(model).__name__} are frozen, so there is nothing to train; leave its head "
                f"unfrozen (requires_grad) in the recipe's build"
            )
        before_deepspeed()
        import deepspeed
        from deepspeed.utils import logger

        import_muon_uncompiled()
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
        self._fused = has_gpu()
        optimizer = adamw(self._groups, config, fused=self._fused)
        self._config = config
        self._model = model
        self._backbone = backbone
        self._optimizer = optimizer
        told = deepspeed_config(
            config,
            workers,
            passes=passes,
            universal=universal,
            trained=trained,
            world_size=dist.get_world_size(),
        )
        self._engine, _, _, _ = deepspeed.initialize(
            model=model,
            optimizer=optimizer,  # pyright: ignore[reportArgumentType]
            config=told,
            dist_init_required=False,
        )
        self._zero: Any = self._engine.optimizer
        if workers.zero_stage < 3:
            look_once(self._zero)
        if universal and workers.zero_stage < 3:
            allow_missing_shares(self._zero)
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

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of this pass. Outside :meth:`local_gradients`, call :meth:`step` after it.

        A loss that is not finite makes the gradient not finite, which :meth:`step` finds. Its own gradient
        could be finite nevertheless, e.g. if the inf came from a constant. The host does not wait.
        """
        kept = torch.where(torch.isfinite(loss.detach()), 1.0, float("nan"))
        self._engine.backward(loss * kept)

    def step(self) -> None:
        """After an update's last pass, take the update. After the others, do nothing.

        If the norm of the gradient over all ranks is not finite, DeepSpeed skips the update on all of them.
        """
        self._engine.step()

    @contextmanager
    def local_gradients(self) -> Iterator[None]:
        """Gradients of the passes inside stay on this rank; when it ends, they are exchanged.

        Ranks may take different numbers of passes inside. Call :meth:`step` once, afterwards. Not for ZeRO
        3, whose passes exchange weights.
        """
        engine, zero = self._engine, self._zero
        # As DeepSpeed's coalesce_grad_reduction, which also exchanges when its block ends with an error:
        # the other ranks would not be there.
        engine.set_gradient_accumulation_boundary(True)
        engine.inside_no_sync_ctxt = zero._coalesce_grad_reduction = True
        try:
            yield
        finally:
            engine.inside_no_sync_ctxt = zero._coalesce_grad_reduction = False
        engine._flush_coalesced_reduction_zero12(zero)

    def forget_gradients(self) -> None:
        """Drop what the passes of :meth:`local_gradients` have added up, also that of a broken pass."""
        while self._zero._backward_active_depth:
            self._zero.exit_backward()
        self._zero.zero_grad()

    @property
    def skipped_updates(self) -> int:
        """The same on every rank."""
        return int(self._engine.skipped_steps)

    @property
    def gradient_norm(self) -> float | torch.Tensor:
        """Of the last update, over all ranks, before clipping; on the device, with ZeRO 1 and 2."""
        norm = self._engine.get_global_grad_norm()
        return 0.0 if norm is None else norm

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
        store_as_plain_values()
        self._engine.save_checkpoint(str(folder), tag=TAG, save_latest=False)

    def restore(self, folder: Path) -> None:
        """Load what every rank saved. Only tensors and plain values are accepted.

        Raises:
            CheckpointError: it cannot be read.
        """
        with loading(folder):
            path, _ = self._engine.load_checkpoint(str(folder), tag=TAG)
            if path is None:
                raise FileNotFoundError(f"it holds no {TAG!r}")
        # The checkpoint may be of another kind of device, and brings that one's choice with it.
        use_kernels(self._optimizer, fused=self._fused)
