"""What the optimiser and the backbone do in an update: pure functions of the configuration and its number."""

from __future__ import annotations

from gmp_atl_dist.config import AdaptedConfig, OptimConfig
from gmp_atl_dist.seeding import keyed_rng


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
