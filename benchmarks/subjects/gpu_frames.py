"""Frame features as ``extract`` computes them, for all parts of ``benchmarks.gpu`` that need them.

This is the one place of the benchmark that knows how a worker of ``extract`` makes and calls its model.

Shape suffixes: M frames of all recordings, T frames, D hidden.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from transformers import HubertConfig

from benchmarks.inputs.spoken import hubert, store_training
from gmp_atl_dist.audio import SAMPLE_RATE_HZ, num_frames, pcm16_to_float
from gmp_atl_dist.inference.audio_slices import AudioSelection
from gmp_atl_dist.inference.extractor import Extractor, ExtractorArgument, ForwardArgument
from gmp_atl_dist.inference.forward import Forward, load_backbone
from gmp_atl_dist.models.flops import frame_flops
from gmp_atl_dist.models.hubert import Hubert, pad_waves
from gmp_atl_dist.models.sizes import NAMED_SIZES
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.store.manifest import ArtifactKey

WINDOW_FRAMES = 3000
CONTEXT_FRAMES = 250
_AT_ONCE = 3
"""Parts in a worker of ``extract``: one is computed, one is stored, and one has been read already."""
_SMALL_CORPUS_S = 10.0
"""Of the corpus that a worker of ``extract`` must be told of; it is given its tables directly."""


class Features:
    """The forward pass of ``extract``.

    Args:
        size: of a HuBERT with random weights.
        layers: that are stored.
        batch_s: seconds of audio in a batch; None as extraction has it, fitted to the device's memory.
    """

    def __init__(
        self, size: str, layers: Sequence[int], device: torch.device, batch_s: float | None = None
    ) -> None:
        self.layers = tuple(layers)
        model = hubert(size)
        torch.nn.Module.to(model, device)
        frames = model.frame_model(
            self.layers, window_frames=WINDOW_FRAMES, context_frames=CONTEXT_FRAMES
        )
        self.forward = Forward(frames, self.layers, batch_s)

    def __call__(self, table: pa.Table) -> dict[int, np.ndarray]:
        """fp16 [M, D] by layer, the recordings of the table in its order."""
        of_layers = self.forward(table)
        return {
            layer: np.concatenate([u.frames_TD for u in utterances])
            for layer, utterances in of_layers.items()
        }

    @property
    def batch_s(self) -> float:
        """Seconds of audio in a batch now: smaller than at first where memory ran out."""
        return self.forward.budget_samples / SAMPLE_RATE_HZ


def plain_features(
    model: Hubert, table: pa.Table, layer: int, device: torch.device, dtype: torch.dtype
) -> np.ndarray:
    """fp32 [M, D] of the model that is trained, one recording at a time, without TF32.

    ``bfloat16`` computes products under autocast, as training does on a GPU.
    """
    narrow = dtype != torch.float32
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    found: list[np.ndarray] = []
    try:
        with torch.inference_mode(), torch.autocast(device.type, dtype=dtype, enabled=narrow):
            for pcm16 in table["pcm16"].to_pylist():
                wave = pcm16_to_float(np.frombuffer(pcm16, "<i2"))
                wave_BN, num_samples_B = pad_waves([wave])
                output = model.forward_frames(
                    wave_BN.to(device), num_samples_B.to(device), want=[layer]
                )
                x_TD = output.hidden[layer][0, : num_frames(len(wave))]
                found.append(x_TD.float().cpu().numpy())
    finally:
        torch.backends.cudnn.allow_tf32 = allowed
    return np.concatenate(found)


def table_tflop(size: str, layer: int, table: pa.Table) -> float:
    """Arithmetic of a forward pass up to ``layer`` over a table, without padding, 1e12 operations."""
    config = hubert_config(size)
    cut = HubertConfig.from_dict(config.to_dict() | {"num_hidden_layers": layer})
    total = 0.0
    for samples in table["num_samples"].to_pylist():
        frames = num_frames(samples)
        flops = frame_flops(cut, frames)
        total += frames * (flops.conv + flops.rest)
    return total / 1e12


def hubert_config(size: str) -> HubertConfig:
    """The configuration of a named size; no weights are made."""
    return HubertConfig.from_dict(dict(NAMED_SIZES[size]))


def store_worker(folder: Path, size: str, layers: Sequence[int]) -> Extractor:
    """A worker of ``extract`` that stores its features below ``folder``."""
    stored = store_training(folder, size, _SMALL_CORPUS_S)
    forward = ForwardArgument(
        AudioSelection(stored.training),
        stored.backbone,
        load_backbone,
        tuple(layers),
        WINDOW_FRAMES,
        CONTEXT_FRAMES,
        None,
    )
    key = ArtifactKey("extract", "e" * 64)
    return Extractor(ExtractorArgument(forward, "none", stored.store, key))


def extract_parts(worker: Extractor, table: pa.Table, names: Sequence[str]) -> float:
    """Seconds in which the worker computes and stores a table under each of some names.

    A part is stored in another thread while the next one is computed, and at most three are begun, as in
    the pipeline.
    """
    with ThreadPoolExecutor(1) as pool:
        started_s = time.perf_counter()
        puts: deque[Future[str]] = deque()
        for name in names:
            if len(puts) == _AT_ONCE - 1:
                puts.popleft().result()
            puts.append(pool.submit(worker.compute(Task(name), table)))
        for put in puts:
            put.result()
        return time.perf_counter() - started_s
