"""Which parameters share a learning rate and a weight decay, and what these are in each update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        is_backbone: whether ``freeze_backbone_steps`` applies.
    """

    parameters: tuple[nn.Parameter, ...]
    weight_decay: float
    lr_factor: float
    is_backbone: bool

    def learning_rate(self, rate: float, frozen: bool) -> float:
        """``rate`` is the schedule's; a frozen backbone has 0, and so no weight decay either."""
        return 0.0 if frozen and self.is_backbone else rate * self.lr_factor


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
            is_vector = parameter.ndim <= 1
            # Without freezing, head and backbone share a group where their rates are equal.
            freezing = freezes and id(parameter) in of_backbone
            found.setdefault((is_vector, factor, freezing), []).append(parameter)
    return [
        ParameterGroup(
            tuple(parameters), 0.0 if is_vector else config.weight_decay, factor, freezing
        )
        for (is_vector, factor, freezing), parameters in sorted(
            found.items(), key=lambda item: item[0][0]
        )
    ]


class ThawingAdamW(torch.optim.AdamW):
    """AdamW with groups whose key ``frozen`` is true in some updates.

    Their gradient and learning rate are 0 then, so weights and moments stay. What would change is the number
    of updates that corrects the bias of the moments. It stays 0 too, so that a group that is no longer
    frozen starts as a new optimiser would, not with moments that are taken for those of many updates.
    """

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        loss = super().step(closure)
        for group in self.param_groups:
            if group.get("frozen"):
                for parameter in group["params"]:
                    state: dict[str, Any] = self.state.get(parameter, {})
                    if "step" in state:
                        state["step"] = torch.zeros_like(state["step"])
        return loss


def adamw(groups: Sequence[ParameterGroup], config: OptimConfig) -> torch.optim.AdamW:
    """PyTorch's AdamW over ``groups``, in their order."""
    kind = ThawingAdamW if any(group.is_backbone for group in groups) else torch.optim.AdamW
    return kind(
        [
            {"params": list(group.parameters), "weight_decay": group.weight_decay}
            for group in groups
        ],
        lr=config.lr,
        betas=config.betas,
        eps=config.adam_eps,
    )
