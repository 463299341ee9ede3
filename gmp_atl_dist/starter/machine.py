"""The machine that a run is planned for: cores, memory, GPUs, and how fast it trains a model."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import psutil

from gmp_atl_dist import device
from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.config import ModelConfig

_CLIP_S = 3.0
_CLIPS = 4
_MEASURE_S = 2.0
_HUB_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class MachineFacts:
    """What a run can use. ``memory_gib`` is the machine's, not a GPU's.

    ``load`` is the number of processes that computed in the last minute, before anything was measured.
    ``hub`` says whether models can be downloaded from the hub.
    """

    cores: int
    memory_gib: float
    gpus: int
    load: float = 0.0
    hub: bool = True


def this_machine() -> MachineFacts:
    """The cores and GPUs that this process may use."""
    return MachineFacts(
        cores=len(os.sched_getaffinity(0)),
        memory_gib=psutil.virtual_memory().total / 2**30,
        gpus=device.gpu_count(),
        load=os.getloadavg()[0],
        hub=_reaches_hub(),
    )


def _reaches_hub() -> bool:
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return False
    parts = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    try:
        address = (parts.hostname or "", parts.port or 443)
        socket.create_connection(address, timeout=_HUB_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def measured_rate(source: str, cores: int) -> float:
    """Seconds of audio per second that training a model on this machine takes, forward and backward.

    One process, on a GPU where there is one, otherwise on ``cores``. Takes a few seconds.

    Args:
        source: ``model.source``, random:SIZE.
        cores: threads to compute with.
    """
    import torch

    from gmp_atl_dist.models.multitask import WarmupModel
    from gmp_atl_dist.models.source import load_source

    before = torch.get_num_threads()
    torch.set_num_threads(cores)
    try:
        where = device.torch_device()
        model = WarmupModel(load_source(ModelConfig(source=source)), 4).to(where).train()
        wave_BN = torch.randn(_CLIPS, round(_CLIP_S * SAMPLE_RATE_HZ), device=where)
        samples_B = torch.full((_CLIPS,), wave_BN.shape[1], device=where)

        def update() -> float:
            with device.autocast():
                output = model(wave_BN, samples_B)
                loss = output.emotion_BK.float().square().mean()
            loss.backward()
            return float(loss.detach())  # waits for a GPU

        update()  # the first one also allocates memory
        start, updates = time.perf_counter(), 0
        while updates == 0 or time.perf_counter() - start < _MEASURE_S:
            update()
            updates += 1
        return updates * _CLIPS * _CLIP_S / (time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
