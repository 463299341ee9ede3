"""What is said before a stage that runs the model: hours, device-hours, share of the GPU's rate, and price.

All of it follows from what such a stage took before (``estimate.py``). What is not known is said to be so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gmp_atl_dist.audio import FRAME_HOP_SAMPLES, SAMPLE_RATE_HZ
from gmp_atl_dist.config import OptimConfig, RunConfig
from gmp_atl_dist.config.runtime import PriceConfig
from gmp_atl_dist.progress_rows import about
from gmp_atl_dist.report.sweep_cost import price_of
from gmp_atl_dist.runs.estimate import Planned
from gmp_atl_dist.scheduling.demands import Held, quantity
from gmp_atl_dist.scheduling.room import Offers
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.index import read_index

_S_PER_H = 3600.0
_TYPE = "accelerator_type:"
"""Ray's prefix of the resource that names the kind of GPU of a node."""
_TFLOPS = {
    **{"A100": 312.0, "A100-40G": 312.0, "A100-80G": 312.0, "H100": 989.0, "H200": 989.0},
    **{"L4": 121.0, "L40S": 362.0, "B200": 2250.0},
    **{"V100": 15.7, "T4": 8.1},
}
"""Nominal matrix products, 1e12 FLOP/s, by Ray's name of the GPU: dense bf16 of the SXM form, by NVIDIA's
data sheets, and fp32 for the GPUs without bf16, which compute in it."""


@dataclass(frozen=True)
class Rate:
    """The nominal rate of the cluster's GPUs, or why it is not known.

    Attributes:
        flops: FLOP/s of one GPU; None: not known.
        said: the name of the GPU, or the reason.
    """

    flops: float | None
    said: str


def rate_of(nodes: Offers | None) -> Rate:
    """The nominal rate of the GPUs of these nodes, where they are all of one known kind."""
    kinds = {
        name.removeprefix(_TYPE)
        for node in nodes or ()
        for name in node
        if name.startswith(_TYPE) and node.get("GPU")
    }
    if not kinds:
        return Rate(None, "the cluster does not say which GPUs it has")
    if len(kinds) > 1:
        return Rate(None, f"the cluster has several kinds of GPUs: {', '.join(sorted(kinds))}")
    (kind,) = kinds
    tflops = _TFLOPS.get(kind)
    if tflops is None:
        return Rate(None, f"no nominal rate of {kind} is known here")
    return Rate(tflops * 1e12, kind)


def training_flops(
    config: RunConfig, planned: Planned, backbone: Artifact, corpus: Artifact
) -> float | None:
    """Floating-point operations of a trained stage; None for another stage, or if its audio is not known.

    A backward pass costs two forward passes. A frozen convolutional encoder has none.
    """
    from gmp_atl_dist.models.backbone_registry import read_config

    trained: Mapping[str, OptimConfig] = {
        "warmup": config.warmup,
        "retrain": config.retrain,
        "finetune": config.finetune,
        "pretrain1": config.pretrain,
        "pretrain2": config.pretrain,
    }
    optim, audio_s = trained.get(planned.name), planned.work.audio_s
    if optim is None or audio_s is None:
        return None
    implementation, values = read_config(backbone.read_file("config.json"), backbone.key.prefix)
    lengths_U = read_index(corpus)["num_samples"].to_numpy()
    of_frame = implementation.flops(values, float(lengths_U.mean()) / FRAME_HOP_SAMPLES)
    conv = of_frame.conv * (1 if optim.freeze_conv else 3)
    return audio_s * SAMPLE_RATE_HZ / FRAME_HOP_SAMPLES * (conv + 3 * of_frame.rest)


def expectation(
    label: str,
    seconds: float | None,
    held: Held,
    price: PriceConfig,
    *,
    whole: bool = True,
    before: Held | None = None,
    flops: float | None = None,
    rate: Rate | None = None,
) -> str:
    """One line about a stage that starts.

    Args:
        seconds: expected duration; None: nothing like it was measured.
        held: cores and GPUs of its workers; empty: their number may change.
        price: of an hour of a device.
        whole: no earlier attempt has done a part of it.
        before: what the workers held that ``seconds`` were measured with; None: not known.
        flops: of the stage; None: not counted.
        rate: of one device; None: the share of it is not said.
    """
    if seconds is None:
        return (
            f"{label}: how long it takes, and what it costs, is not known: nothing like it was measured "
            f"below this root"
        )
    took = "less than a minute" if seconds < _SHORT_S else about(seconds)
    parts = [f"expected to take {took}"]
    hours = {device: number * seconds / _S_PER_H for device, number in held.items() if number}
    cost = price_of(hours, price.per_hour)
    if not held:
        parts.append("device-hours not known, because the number of workers may change")
    else:
        parts += [f"{_spent(spent)} {_UNITS[device]}" for device, spent in hours.items()]
        # A price that nobody set is not worth a word before each stage.
        parts += [] if cost is None else [f"{cost:,.2f} {price.currency}".rstrip()]
    parts += _share(seconds, held, flops, rate)
    notes = [f"; it then had {_devices(before)}"] if before and held and before != held else []
    notes += [] if whole else ["; an earlier attempt has done a part of it"]
    return f"{label}: {', '.join(parts)}; by what stages took before{''.join(notes)}"


_UNITS = {"CPU": "core-hours", "GPU": "GPU-hours"}
_SHORT_S = 45.0
_LEAST_HOURS = 0.01


def _spent(hours: float) -> str:
    return f"{hours:.3g}" if hours >= _LEAST_HOURS else f"less than {_LEAST_HOURS:g}"


def _devices(held: Held) -> str:
    units = {"CPU": "core", "GPU": "GPU"}
    return " and ".join(
        quantity(number, units[device]) for device, number in held.items() if number
    )


def _share(seconds: float, held: Held, flops: float | None, rate: Rate | None) -> Sequence[str]:
    gpus = held.get("GPU", 0.0)
    if rate is None or seconds <= 0 or not gpus:
        return ()
    if flops is None or rate.flops is None:
        return (f"share of the device's rate not known, because {rate.said}",)
    share = flops / (seconds * gpus * rate.flops)
    return (f"{100 * share:.2g} % of the nominal rate of {rate.said}",)
