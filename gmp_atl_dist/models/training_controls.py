"""What training does to a backbone beside its loss: scaled or blocked gradients, layers that drop out.

All of it is off at first, and none of it has an effect in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.models.gradient_scale import scale_gradient


class TrainingControls(nn.Module):
    """The part of :class:`gmp_atl_dist.models.backbone.SpeechBackbone` that only training uses.

    Attributes:
        front_end_gradient: the gradient that the convolutional encoder gets is multiplied by it. The penalty
            on its output is part of that gradient, as in fairseq (``feature_grad_mult``).
        gradient_blocked: True while the backbone is frozen. Every parameter then gets a gradient of zeros.
        dropped_layers: layers, from 1, that pass their input on (LayerDrop, Fan et al. 2019, arXiv
            1909.11556). :meth:`enable_layer_drop` must have been called.
    """

    front_end_gradient: float = 1.0
    gradient_blocked: bool = False
    dropped_layers: frozenset[int] = frozenset()

    @property
    def encoder_layers(self) -> Sequence[nn.Module]:
        """The layers in order, for the options that treat layers one by one.

        The default is where the models of transformers have them. The input of a layer is its first
        argument, its output a tensor or a tuple that begins with one.

        Raises:
            ModelError: this backbone has them elsewhere, and does not say where.
        """
        layers = getattr(getattr(self, "encoder", None), "layers", None)
        if not isinstance(layers, nn.ModuleList):
            raise ModelError(
                f"{type(self).__name__} does not say which its layers are, so layer_drop and "
                f"layer_lr_decay cannot be used with it; define its property encoder_layers, or leave "
                f"these keys out"
            )
        return list(layers)

    def parameter_depths(self) -> dict[str, int]:
        """Of each parameter of the backbone: its layer from 1, or 0 for what lies before the first layer.

        A norm behind the last layer belongs to the last layer.
        """
        layers = self.encoder_layers
        depth_of = {id(p): i for i, layer in enumerate(layers, 1) for p in layer.parameters()}
        last_norm = "encoder.layer_norm." if self._norm_is_last() else None
        depths: dict[str, int] = {}
        for name, parameter in self.named_parameters():
            is_last = last_norm is not None and name.startswith(last_norm)
            depths[name] = len(layers) if is_last else depth_of.get(id(parameter), 0)
        return depths

    def enable_layer_drop(self) -> None:
        """From now on the layers of :attr:`dropped_layers` pass their input on.

        Such a layer is computed, and its result is not taken. So it costs as much as before, and its
        parameters get a gradient of zeros: ZeRO must have a gradient of each parameter on each rank.
        """
        for number, layer in enumerate(self.encoder_layers, 1):
            layer.register_forward_hook(self._passed_on(number), with_kwargs=True)

    def _passed_on(self, number: int) -> Callable[..., object]:
        def hook(
            layer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any
        ) -> Any:
            if not layer.training or number not in self.dropped_layers:
                return None
            x_BTD: Tensor = args[0] if args else kwargs["hidden_states"]
            first, *rest = out if isinstance(out, tuple) else (out,)
            # torch.where, not a product with 0: padding frames may hold anything, inf included.
            taken = torch.zeros((), dtype=torch.bool, device=x_BTD.device)
            first = torch.where(taken, first, x_BTD)
            return (first, *rest) if isinstance(out, tuple) else first

        return hook

    def _norm_is_last(self) -> bool:
        """Whether ``encoder.layer_norm`` comes after the last layer, and not before the first."""
        return bool(getattr(cast(Any, self).config, "do_stable_layer_norm", False))

    def _controlled_front_end(self, conv_features_BTC: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return conv_features_BTC
        return scale_gradient(conv_features_BTC, self.front_end_gradient)

    def _controlled_output(self, x: Tensor) -> Tensor:
        return scale_gradient(x, 0.0) if self.gradient_blocked and torch.is_grad_enabled() else x
