"""Which parameters share a learning rate and a weight decay, and what these are in each update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gmp_atl_dist.config import AdaptedConfig, OptimConfig
from gmp_atl_dist.models.backbone import SpeechBackbone


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that AdamW treats alike.

    Attributes:
        parameters: in the order of the model.
        weight_decay: 0 for vectors: biases, the scales and shifts of norms, the mask embedding. Only
            tensors of two dimensions or more are decayed.
        lr_factor: the learning rate is that of the schedule times this.
        freezes: whether ``freeze_backbone_steps`` applies.
        has_backbone: whether parameters of the backbone are among them.
        has_head: whether others are.
    """

    parameters: tuple[nn.Parameter, ...]
    weight_decay: float
    lr_factor: float
    freezes: bool
    has_backbone: bool
    has_head: bool

    def learning_rate(self, rate: float, frozen: bool) -> float:
        """``rate`` is the schedule's; a frozen backbone has 0, and so no weight decay either."""
        return 0.0 if frozen and self.freezes else rate * self.lr_factor


def parameter_groups(
    model: nn.Module, backbone: SpeechBackbone, config: OptimConfig
) -> list[ParameterGroup]:
    """All trained parameters of ``model``. Those that are decayed come first.

    Layer ``i`` of ``L`` has ``layer_lr_decay ** (L - i)`` times the learning rate, what lies before the first
    layer ``layer_lr_decay ** L``, and the head ``head_lr_factor`` (discriminative fine-tuning, Howard &
    Ruder 2018, arXiv 1801.06146, section 3.2).

    Raises:
        ModelError: ``layer_lr_decay`` is set, and the backbone does not say which its layers are.
    """
    head_factor, decay, freezes = 1.0, 1.0, False
    if isinstance(config, AdaptedConfig):
        head_factor, decay = config.head_lr_factor, config.layer_lr_decay
        freezes = config.freeze_backbone_steps > 0
    of_backbone = {id(p): 1.0 for p in backbone.parameters()}
    if decay != 1:
        depths, last = backbone.parameter_depths(), backbone.num_layers
        of_backbone = {
            id(p): decay ** (last - depths[name]) for name, p in backbone.named_parameters()
        }
    found: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            factor = of_backbone.get(id(parameter), head_factor)
            # Without freezing, head and backbone share a group where their rates are equal.
            freezing = freezes and id(parameter) in of_backbone
            found.setdefault((parameter.ndim <= 1, factor, freezing), []).append(parameter)
    groups: list[ParameterGroup] = []
    for key in sorted(found, key=lambda key: key[0]):
        is_vector, factor, freezing = key
        inside = [id(parameter) in of_backbone for parameter in found[key]]
        groups.append(
            ParameterGroup(
                tuple(found[key]),
                weight_decay=0.0 if is_vector else config.weight_decay,
                lr_factor=factor,
                freezes=freezing,
                has_backbone=any(inside),
                has_head=not all(inside),
            )
        )
    return groups


def adamw(
    groups: Sequence[ParameterGroup], config: OptimConfig, *, fused: bool = False
) -> torch.optim.AdamW:
    """PyTorch's AdamW over ``groups``, in their order. Their key ``frozen`` may be set before an update.

    ``fused``: one kernel of a GPU for a whole group, which reads and writes each number once.
    """
    optimizer = torch.optim.AdamW(
        [
            {"params": list(group.parameters), "weight_decay": group.weight_decay}
            for group in groups
        ],
        lr=config.lr,
        betas=config.betas,
        eps=config.adam_eps,
        fused=fused or None,
    )
    if any(group.freezes for group in groups):
        optimizer.register_step_post_hook(_keep_frozen_groups_new)
    return optimizer


def use_kernels(optimizer: torch.optim.Optimizer, *, fused: bool) -> None:
    """Make a restored optimiser use the kernels of this device, not those of the one that saved it.

    The fused kernel counts updates on the device; the others count them on the host.
    """
    for group in optimizer.param_groups:
        group["fused"] = fused or None
        for parameter in group["params"]:
            state: dict[str, Any] = optimizer.state.get(parameter, {})
            if "step" in state:
                step = torch.as_tensor(state["step"], dtype=torch.float32)
                state["step"] = step.to(parameter.device if fused else "cpu")


def _keep_frozen_groups_new(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Gradient and learning rate of a frozen group are 0, so its weights and moments stay as they were.

    What would still change is the number of updates, which corrects the bias of the moments. It stays 0 too.
    So a group that is no longer frozen starts as in a new optimiser, and its moments are not taken for those
    of many updates.
    """
    for group in optimizer.param_groups:
        if group.get("frozen"):
            for parameter in group["params"]:
                state: dict[str, Any] = optimizer.state.get(parameter, {})
                if "step" in state:
                    state["step"] = torch.zeros_like(state["step"])
