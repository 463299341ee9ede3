"""What a model's configuration says: facts that the method needs before weights are loaded, and checks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any, cast

from transformers import PreTrainedConfig

from gmp_atl_dist.errors import ModelError


@dataclass(frozen=True)
class BackboneFacts:
    """What the method needs to know of a model before it loads the weights.

    Attributes:
        model_type: the name under which the implementation is found.
        hidden_size: D.
        num_layers: layers of the encoder; layers 0 to this number can be asked for.
        front_end_dim: C.
        front_end_kernels: of the convolutions, in order.
        front_end_strides: of the convolutions, in order.
        exact_padding: a clip's frames do not depend on the other clips of its batch (to rounding, 1e-5).
    """

    model_type: str
    hidden_size: int
    num_layers: int
    front_end_dim: int
    front_end_kernels: tuple[int, ...]
    front_end_strides: tuple[int, ...]
    exact_padding: bool

    @property
    def hop_samples(self) -> int:
        """Samples from one frame to the next."""
        return prod(self.front_end_strides)

    @property
    def field_samples(self) -> int:
        """Samples that one frame of the convolutional encoder sees."""
        strides = self.front_end_strides
        kernels = self.front_end_kernels
        return 1 + sum((kernel - 1) * prod(strides[:i]) for i, kernel in enumerate(kernels))


def read_config_values(config_json: bytes, name: str) -> dict[str, Any]:
    """Raises ModelError where ``config_json`` is not a JSON object."""
    try:
        values = json.loads(config_json)
    except ValueError as e:
        raise ModelError(f"{name}: config.json cannot be read: {e}; download it again") from e
    except RecursionError:
        raise ModelError(
            f"{name}: config.json cannot be read: it is nested too deeply; download it again"
        ) from None
    if not isinstance(values, dict):
        raise ModelError(
            f"{name}: config.json cannot be read: it is not a JSON object; download it again"
        )
    return values


def check_layers(config: PreTrainedConfig, layers: Iterable[int], *, name: str = "") -> None:
    """Refuse layers that the model lacks.

    Raises:
        ModelError: names the model, every such layer, and how many layers there are.
    """
    count = int(cast(Any, config).num_hidden_layers)
    missing = [layer for layer in layers if not 0 <= layer <= count]
    if missing:
        raise ModelError(
            f"{name or model_name(config)} has no layer {', '.join(map(str, missing))}: it has {count} "
            f"layers; choose from 1 to {count}, or 0 for the input of the first"
        )


def set_normalize_waveform(config: PreTrainedConfig, normalize: bool) -> None:
    """Set in ``config`` whether waveforms are normalised; it is saved in ``config.json``."""
    setattr(config, "normalize_waveform", normalize)  # noqa: B010 (not a declared field)


def model_name(config: PreTrainedConfig) -> str:
    """What errors call the model."""
    return getattr(config, "_name_or_path", "") or f"this {config.model_type} model"
