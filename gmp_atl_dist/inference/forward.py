"""Frame features of a table of recordings, in batches that fit into the device's memory.

Shape suffixes: N samples, T frames, D hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from gmp_atl_dist.audio import FRAME_HOP_SAMPLES, SAMPLE_RATE_HZ, num_frames, pcm16_to_float
from gmp_atl_dist.device import (
    free_cached_memory,
    gpu_free_bytes,
    gpu_peak_bytes,
    has_gpu,
    torch_device,
)
from gmp_atl_dist.errors import ModelError, WorkerError
from gmp_atl_dist.gpu_state import is_out_of_memory
from gmp_atl_dist.inference.cost import cost_batches
from gmp_atl_dist.models.backbone import FrameModel
from gmp_atl_dist.models.source import backbone_from_files
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.features import UtteranceFrames

_CPU_BATCH_S = 60.0
_LEAST_BATCH_SAMPLES = SAMPLE_RATE_HZ
_PROBE_S = (10.0, 40.0)
_MEMORY_SHARE = 0.7
"""Of the free memory: the allocator's blocks never fill it completely."""


Loader = Callable[[Artifact, tuple[int, ...], int, int], FrameModel]
"""Loads (model artefact, layers, frames of a window, frames of its context) to a model; picklable."""


def load_backbone(
    model: Artifact, layers: tuple[int, ...], window_frames: int, context_frames: int
) -> FrameModel:
    """The backbone in a ``backbone``, ``pretrain`` or ``warmup`` artefact, on this process's device."""
    backbone = backbone_from_files(model.read_files(), name=model.key.prefix)
    nn.Module.to(backbone, torch_device())
    return backbone.frame_model(layers, window_frames=window_frames, context_frames=context_frames)


class Forward:
    """A model and its batch size, which becomes smaller when memory runs out.

    Args:
        model: the inference path of a backbone.
        layers: the wanted layers.
        batch_s: seconds of audio per batch; None: fitted to the device's memory, once.
    """

    def __init__(self, model: FrameModel, layers: tuple[int, ...], batch_s: float | None) -> None:
        self._model = model
        self._layers = layers
        fitted_s = _fitted_batch_s(model) if batch_s is None else batch_s
        self.budget_samples = int(fitted_s * SAMPLE_RATE_HZ)

    def __call__(self, table: pa.Table) -> dict[int, list[UtteranceFrames]]:
        """fp16 features by layer, one entry per row of ``table``, in its order.

        Raises:
            ModelError: features are not finite, too large for fp16, or not as many as the samples give;
                names the utterance.
            WorkerError: a single recording is too long for the device's memory.
        """
        ids: list[str] = table["utterance_id"].to_pylist()
        lengths = dict(enumerate(table["num_samples"].to_pylist()))
        pcm16 = table["pcm16"].combine_chunks()
        frames: dict[int, dict[int, np.ndarray]] = {}
        pending = list(cost_batches(lengths, self.budget_samples))[::-1]
        while pending:
            batch = pending.pop()
            waves = [stored_wave(pcm16[row], ids[row], lengths[row]) for row in batch]
            try:
                frames.update(self._run(waves, batch, ids))
            except RuntimeError as e:
                if not is_out_of_memory(e):
                    raise
                self._back_off(batch, ids, lengths, e)
                rest = {row: lengths[row] for rows in [batch, *pending] for row in rows}
                pending = list(cost_batches(rest, self.budget_samples))[::-1]
        return {
            layer: [UtteranceFrames(ids[row], frames[row][layer]) for row in range(len(ids))]
            for layer in self._layers
        }

    def _run(
        self, waves: list[np.ndarray], rows: list[int], ids: list[str]
    ) -> Iterator[tuple[int, dict[int, np.ndarray]]]:
        device = torch_device()
        outputs = self._model(
            [torch.from_numpy(wave).to(device) for wave in waves],
            max(1, self.budget_samples // FRAME_HOP_SAMPLES),
        )
        for row, wave, output in zip(rows, waves, outputs, strict=True):
            yield row, {layer: to_fp16(x_TD, ids[row], layer) for layer, x_TD in output.items()}
            counts = {len(x_TD) for x_TD in output.values()}
            if counts != {num_frames(len(wave))}:
                raise ModelError(
                    f"utterance {ids[row]!r}: the model gave {sorted(counts)} frames, expected "
                    f"{num_frames(len(wave))} for {len(wave)} samples; use a model with a frame every "
                    f"{FRAME_HOP_SAMPLES} samples"
                )

    def _back_off(
        self, batch: list[int], ids: list[str], lengths: dict[int, int], error: Exception
    ) -> None:
        """Halve the budget for all later batches too: they would not fit either."""
        free_cached_memory()
        held = max(lengths[row] for row in batch) * len(batch)
        smaller = min(self.budget_samples, held) // 2
        if smaller < _LEAST_BATCH_SAMPLES:
            raise WorkerError(
                f"utterance {ids[batch[0]]!r} of {lengths[batch[0]] / SAMPLE_RATE_HZ:.1f} s does not "
                f"fit into the device's memory ({error}); lower extract.max_window_s, or give the "
                f"worker a larger device"
            ) from error
        self.budget_samples = smaller


def stored_wave(value: pa.BinaryScalar, utterance_id: str, num_samples: int) -> np.ndarray:
    """float32 (N,) from stored 16-bit samples. Raises ModelError where their number is wrong."""
    samples = np.frombuffer(value.as_buffer(), dtype="<i2")
    if len(samples) != num_samples:
        raise ModelError(
            f"utterance {utterance_id!r} has {len(samples)} samples in the store, expected "
            f"{num_samples}; run gmp-atl verify"
        )
    return pcm16_to_float(samples)


def to_fp16(x_TD: Tensor, utterance_id: str, layer: int) -> np.ndarray:
    """fp16 (T, D) in C order.

    Raises:
        ModelError: a value is not finite, or too large for fp16; names the utterance.
    """
    narrow = x_TD.to("cpu", torch.float16).numpy()
    if not np.isfinite(narrow).all():
        raise ModelError(
            f"utterance {utterance_id!r}: layer {layer} has features that are not finite in fp16 "
            f"(largest finite {np.nanmax(np.abs(x_TD.float().cpu().numpy())):.3g}); listen to the "
            f"recording, or train warmup with a lower warmup.lr"
        )
    return np.ascontiguousarray(narrow)


def _fitted_batch_s(model: FrameModel) -> float:
    """Seconds of audio that fit into the GPU's free memory, from the memory of two probes; fixed on a CPU.

    A CPU gains nothing from batches of more than a minute: its matrix products already run at full rate.
    """
    if not has_gpu():
        return _CPU_BATCH_S

    def probe(seconds: float) -> None:
        wave_N = torch.zeros(int(seconds * SAMPLE_RATE_HZ), device=torch_device())
        model([wave_N], num_frames(len(wave_N)))

    short, long = (gpu_peak_bytes(partial(probe, seconds)) for seconds in _PROBE_S)
    return fit_budget_s(_PROBE_S, (short, long), gpu_free_bytes())


def fit_budget_s(
    probes_s: tuple[float, float], peaks_bytes: tuple[int, int], free_bytes: int
) -> float:
    """Seconds that fit into a share of ``free_bytes``, with the growth of memory between two probes."""
    slope = (peaks_bytes[1] - peaks_bytes[0]) / (probes_s[1] - probes_s[0])
    if slope <= 0:
        return probes_s[1]
    return max(1.0, _MEMORY_SHARE * free_bytes / slope)
