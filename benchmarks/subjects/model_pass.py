"""The subjects of ``benchmarks.passes``: one pass of HuBERT in training, measured or profiled.

Shapes: B clips, N samples.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.harness.machine import matmul_gflops
from benchmarks.harness.processes import MIB, forget_peak, peak_bytes
from benchmarks.harness.rounds import rate
from gmp_atl_dist.audio import FRAME_HOP_SAMPLES, SAMPLE_RATE_HZ
from gmp_atl_dist.models.backbone import SpeechBackbone
from gmp_atl_dist.models.hubert import Hubert, build_random

_SHORTEST, _LONGEST = 0.8, 1.2
_PARTS = {
    "products": ("mm", "addmm", "bmm", "baddbmm", "convolution", "mkldnn", "linear", "dot"),
    "copies": (
        "copy",
        "cat",
        "index",
        "gather",
        "scatter",
        "embedding",
        "clone",
        "select",
        "stack",
    ),
    "activations": ("gelu",),
    "norms": ("norm", "softmax"),
    "elementwise": ("add", "sub", "mul", "div", "dropout", "where", "fill", "zero", "pow", "sqrt"),
}
"""Parts of an operator's name, by group. The first group that has one of them counts the operator."""


@dataclass(frozen=True)
class Clips:
    """What a pass is given.

    Attributes:
        size: of HuBERT, with random weights.
        audio_s: seconds of audio of all clips.
        clip_s: mean seconds of a clip.
        dropout: probability in the encoder.
    """

    size: str
    audio_s: float
    clip_s: float
    dropout: float

    def waves(self) -> tuple[Tensor, Tensor]:
        """The padded waves (B, N) and the samples of each (B). One clip has the mean length."""
        count = max(1, round(self.audio_s / self.clip_s))
        spread = torch.linspace(_SHORTEST, _LONGEST, count) if count > 1 else torch.ones(1)
        num_samples_B = (self.audio_s / count * spread * SAMPLE_RATE_HZ).long()
        generator = torch.Generator().manual_seed(0)
        return (
            0.1 * torch.randn(count, int(num_samples_B.max()), generator=generator),
            num_samples_B,
        )


@dataclass(frozen=True)
class Pass:
    """What one pass took, and the most memory that its process had."""

    cpu_s: float
    wall_s: float
    peak_mib: float
    matmul_share: float


def measure_pass(subject: str, clips: Clips) -> Pass:
    """One pass after one that warms up. Its share is of the matmul rate of this process."""
    step, gflop = _step(subject, clips)
    step()
    forget_peak()
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    step()
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    peak_mib = peak_bytes() / MIB
    # Both in CPU time, which other work on the machine changes least.
    share = rate(gflop, cpu_s * matmul_gflops(time.process_time), "share of the matmul rate")
    return Pass(cpu_s, wall_s, peak_mib, share)


def profile_pass(clips: Clips) -> dict[str, float]:
    """The share of each group of operators in the CPU time of a packed pass."""
    step, _ = _step("packed", clips)
    step()
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        step()
    spent_us = dict.fromkeys((*_PARTS, "rest"), 0.0)
    for average in recorded.key_averages():
        spent_us[_group(average.key)] += average.self_cpu_time_total
    total_us = sum(spent_us.values())
    return {group: rate(us, total_us, "profiled time") for group, us in spent_us.items()}


def _group(operator: str) -> str:
    name = operator.removeprefix("aten::").lower()
    found = (group for group, parts in _PARTS.items() if any(part in name for part in parts))
    return next(found, "rest")


def _step(subject: str, clips: Clips) -> tuple[Callable[[], None], float]:
    """A function that takes one pass, and the arithmetic of the model in it, in GFLOP."""
    model = build_random(clips.size, seed=0).train()
    model.set_dropout(clips.dropout)
    if subject == "checkpointed":
        model.checkpoint_activations()
    wave_BN, num_samples_B = clips.waves()
    # The reference is the method of the base class, which every backbone has.
    frames = (
        (lambda *args, **keys: SpeechBackbone.packed_frames(model, *args, **keys))
        if subject == "padded"
        else model.packed_frames
    )

    def step() -> None:
        model.zero_grad(set_to_none=True)
        out = frames(wave_BN, num_samples_B, seeds=list(range(len(wave_BN))))
        loss = out.hidden[model.num_layers].square().mean() + out.conv_features_MC.square().mean()
        loss.backward()

    total = float(num_samples_B.sum()) / FRAME_HOP_SAMPLES
    flops = Hubert.flops(model.config, total / len(wave_BN))
    # A backward pass costs two forward passes.
    return step, 3 * (flops.conv + flops.rest) * total / 1e9
