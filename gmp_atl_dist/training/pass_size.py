"""How much audio a forward and backward pass has: micro-batches are joined as far as the memory takes them.

A GPU is busy when a pass has 200 s of audio or more. The audio of an update and the number of its
micro-batches are scientific keys; how many of them a pass has is not. Losses are sums over clips whose
divisor is that of the whole update, so an update is the same however its clips are packed into passes. Two
things differ: the order of additions and, on a GPU, which dropout masks are drawn.

The order of additions decides the last bits. So the size is found once, when a training starts, and is kept
in its checkpoints: a resumed training has the same passes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import nn

from gmp_atl_dist.device import (
    autocast,
    free_cached_memory,
    gpu_free_bytes,
    gpu_peak_bytes,
    has_gpu,
    torch_device,
)
from gmp_atl_dist.training.batches import Batch, BatchLoader
from gmp_atl_dist.training.memory import audio_s, is_full
from gmp_atl_dist.training.ranks import HostGroup
from gmp_atl_dist.training.recipe import Recipe

_log = logging.getLogger(__name__)

MOST_S = 400.0
"""More audio in a pass makes a GPU no faster. A worker's share of an update that is longer is cut into equal
passes, so that these have 200 s or more as far as its micro-batches can be divided."""
_STATE_BYTES = 24
"""Of a trained parameter, beside its weight: gradient, AdamW's two moments, and the flat copies of weight and
gradient that ZeRO 1 has, in fp32. It is an upper bound, because ranks share some of it."""
_SHARE = 0.8
"""Of the memory that is left. The rest is for clips that are longer and for gaps between allocations."""


def settled_pass_s(
    asked: float | Literal["auto"],
    kept: float | None,
    measure: Callable[[], float],
    group: HostGroup,
) -> float:
    """Seconds of audio up to which micro-batches are joined, the same on every rank; 0: they are not.

    Every rank must call it.

    Args:
        asked: ``runtime.train.pass_s``.
        kept: what the checkpoint says from which the training goes on; None: it starts anew.
        measure: finds what fits on this rank's GPU.
        group: of the ranks. The smallest GPU decides.
    """
    if asked != "auto":
        return asked
    if kept is not None:
        return kept
    return group.least(measure()) if has_gpu() else 0.0


def measured_pass_s(model: nn.Module, recipe: Recipe, loader: BatchLoader) -> float:
    """Seconds of audio of a pass that this GPU has memory for, at most :data:`MOST_S`.

    The memory of two passes with real clips is measured, forward and backward, before DeepSpeed has the
    model. It grows linearly with the audio. The gradients are dropped.

    Args:
        model: as ``recipe`` built it. It is on the GPU afterwards, where it is trained.
        loader: its first update has the clips of the probes.

    Returns:
        0 where two micro-batches do not fit, or there is only one.
    """
    if loader.micro_batches < 2:
        return 0.0
    nn.Module.to(model, torch_device()).train()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    seconds: list[float] = []
    peaks: list[int] = []
    try:
        for joined in (1, 2):
            batch = loader.longest(joined)
            seconds.append(audio_s(batch))
            peaks.append(gpu_peak_bytes(partial(_probe, model, recipe, batch)))
    except Exception as e:
        if not is_full(e):
            raise
        e.__traceback__ = None  # its frames hold the tensors of the pass
        return 0.0
    finally:
        model.zero_grad(set_to_none=True)
        free_cached_memory()
    room = gpu_free_bytes() - _STATE_BYTES * trained
    fitted_s = fitted_pass_s((seconds[0], seconds[1]), (peaks[0], peaks[1]), room)
    _log.info("%s: passes of up to %.0f s of audio fit into the memory", recipe.name, fitted_s)
    return fitted_s


def fitted_pass_s(
    probes_s: tuple[float, float], peaks_bytes: tuple[int, int], room_bytes: float
) -> float:
    """Seconds of audio that fit into a share of ``room_bytes``, by the growth of memory between two probes.

    Where the memory does not grow, nothing can be said beyond the longer probe, which did fit.
    """
    grown_s, grown_bytes = probes_s[1] - probes_s[0], peaks_bytes[1] - peaks_bytes[0]
    if grown_s <= 0 or grown_bytes <= 0:
        return min(MOST_S, probes_s[1])
    return max(0.0, min(MOST_S, _SHARE * room_bytes * grown_s / grown_bytes))


def _probe(model: nn.Module, recipe: Recipe, batch: Batch) -> None:
    model.zero_grad(set_to_none=True)
    with autocast():
        losses = recipe.losses(model, batch.to(torch_device()))
        total = sum(losses.sums[1:], start=losses.sums[0])
    total.backward()
