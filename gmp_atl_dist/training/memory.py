"""Out of memory in a training pass: detecting it, its error message, and splitting the pass."""

from __future__ import annotations

import re
from dataclasses import replace

import psutil
import torch

from gmp_atl_dist.audio import SAMPLE_RATE_HZ, num_frames
from gmp_atl_dist.config import OptimConfig
from gmp_atl_dist.device import has_gpu
from gmp_atl_dist.errors import WorkerError
from gmp_atl_dist.gpu_state import gpu_memory_in_words, is_out_of_memory
from gmp_atl_dist.training.batches import Batch

_GIB = float(1 << 30)
_HOST_FULL = re.compile(r"DefaultCPUAllocator: (can't allocate|not enough) memory")
"""PyTorch on a CPU. It is a plain RuntimeError."""


class PassTooLargeError(WorkerError):
    """A pass of a training does not fit into the memory. The same would happen again."""


def is_full(error: BaseException) -> bool:
    """Whether a library reports that the memory of the GPU, or the host's, is full."""
    if isinstance(error, MemoryError) or is_out_of_memory(error):
        return True
    return isinstance(error, RuntimeError) and _HOST_FULL.search(str(error)) is not None


def audio_s(batch: Batch) -> float:
    """Seconds of audio of a pass, without padding; 0 for the pass of a rank without a share."""
    return float((batch.num_samples_B * batch.weight_B).sum()) / SAMPLE_RATE_HZ


def halves(batch: Batch) -> tuple[Batch, Batch] | None:
    """The two halves of a pass, by clips: the shorter and the longer ones. None for a single clip.

    The loss is a sum over clips whose divisor is that of the whole update, so both halves together have the
    loss and the gradient of the whole. Only the order of additions differs. Crops and masks follow from the
    clip alone. Dropout is drawn per pass, so with dropout another mask is drawn.
    """
    clips = len(batch.utterances)
    if clips < 2:
        return None
    cut = clips // 2
    return _rows(batch, 0, cut), _rows(batch, cut, clips)


def too_large(
    where: str, batch: Batch | None, stage: str, config: OptimConfig, error: BaseException
) -> PassTooLargeError:
    """The error of a pass, or of the optimiser's step where ``batch`` is None.

    Args:
        where: update and pass.
        stage: the section of the configuration that has the keys of the batch.
        error: what a library reported.
    """
    held = joined = ""
    if batch is not None and batch.joined > 1:
        joined = (
            f"The pass has {batch.joined} micro-batches: set runtime.train.pass_s below "
            f"{audio_s(batch):.0f}, and the stage resumes from its newest checkpoint. "
        )
    if batch is not None:
        lengths_s = [int(n) / SAMPLE_RATE_HZ for n in batch.num_samples_B]
        held = (
            f" for {sum(lengths_s):.1f} s of audio in {len(lengths_s)} clips, the longest of "
            f"{max(lengths_s):.1f} s"
        )
    said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return PassTooLargeError(
        f"{stage}: {where}: no memory is left on {_memory()}{held}; the library said: {said}. {joined}Set "
        f"runtime.train.gradient_checkpointing = true, or split passes that do not fit with "
        f'runtime.train.on_out_of_memory = "halve"; the stage then resumes from its newest checkpoint. Or '
        f"raise {stage}.micro_batches (now {config.micro_batches}) or lower {stage}.batch_s (now "
        f"{config.batch_s:g}); these two are scientific keys, and the stage starts again"
    )


def _memory() -> str:
    if has_gpu():
        return gpu_memory_in_words()
    memory = psutil.virtual_memory()
    return (
        f"the CPU's node: {memory.available / _GIB:.1f} GiB free of {memory.total / _GIB:.1f} GiB"
    )


def _rows(batch: Batch, first: int, end: int) -> Batch:
    rows = slice(first, end)
    num_samples_B = batch.num_samples_B[rows]
    conv_BTC = batch.conv_BTC
    # Padding of clips that are in the other half is cut off.
    longest = min(int(num_samples_B.max()), batch.wave_BN.shape[1])
    return replace(
        batch,
        utterances=batch.utterances[rows],
        first_frames=batch.first_frames[rows],
        wave_BN=batch.wave_BN[rows, :longest],
        num_samples_B=num_samples_B,
        weight_B=batch.weight_B[rows],
        conv_BTC=None if conv_BTC is None else _cut(conv_BTC[rows], num_samples_B),
    )


def _cut(conv_BTC: torch.Tensor, num_samples_B: torch.Tensor) -> torch.Tensor:
    return conv_BTC[:, : max(num_frames(int(n)) for n in num_samples_B)]
