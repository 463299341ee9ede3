"""Frame features of a table of recordings, in batches that the device has room for.

Shape suffixes: N samples, T frames, D hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from gmp_atl_dist.audio import FRAME_HOP_SAMPLES, SAMPLE_RATE_HZ, num_frames, pcm16_to_float
from gmp_atl_dist.device import torch_device
from gmp_atl_dist.errors import ModelError, WorkerError
from gmp_atl_dist.inference.cost import cost_batches
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.features import UtteranceFrames

_CPU_BATCH_S = 60.0
_LEAST_BATCH_SAMPLES = SAMPLE_RATE_HZ
_PROBE_S = (10.0, 40.0)
_MEMORY_SHARE = 0.7
"""Of what is free: the allocator's blocks never fit quite."""


class FrameModel(Protocol):
    """float32 (T, D) by layer for each float32 wave (N,) at 16 kHz.

    No more than ``most_frames`` in one pass through the encoder, but for a single window.
    """

    def __call__(self, waves: Sequence[Tensor], most_frames: int) -> list[dict[int, Tensor]]: ...


Loader = Callable[[Artifact, tuple[int, ...], int, int], FrameModel]
"""model artefact, layers, frames of a window and of its context to a model; picklable."""


def load_hubert(
    model: Artifact, layers: tuple[int, ...], window_frames: int, context_frames: int
) -> FrameModel:
    """The HuBERT in a ``warmup`` or ``backbone`` artefact, on this process's device."""
    from gmp_atl_dist.models.packed import PackedHubert
    from gmp_atl_dist.models.source import hubert_from_files

    hubert = hubert_from_files(model.read_files()).eval()
    nn.Module.to(hubert, torch_device())
    return PackedHubert(hubert, layers, window_frames=window_frames, context_frames=context_frames)


class Forward:
    """A model and the batch size that fits it; asks for less when memory runs out.

    Args:
        batch_s: audio in one batch; None is fitted to the device's memory, once.
    """

    def __init__(self, model: FrameModel, layers: tuple[int, ...], batch_s: float | None) -> None:
        self._model = model
        self._layers = layers
        fitted_s = _fitted_batch_s(model) if batch_s is None else batch_s
        self.budget_samples = int(fitted_s * SAMPLE_RATE_HZ)

    def __call__(self, table: pa.Table) -> dict[int, list[UtteranceFrames]]:
        """fp16 features by layer, an entry a row of ``table`` in its order.

        Raises:
            ModelError: features are not finite, too large for fp16, or of another number than the
                samples give; names the utterance.
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
            except torch.OutOfMemoryError as e:
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
            found = {len(x_TD) for x_TD in output.values()}
            if found != {num_frames(len(wave))}:
                raise ModelError(
                    f"utterance {ids[row]!r}: the model gave {sorted(found)} frames, expected "
                    f"{num_frames(len(wave))} for {len(wave)} samples; its convolutions are not HuBERT's"
                )

    def _back_off(
        self, batch: list[int], ids: list[str], lengths: dict[int, int], error: Exception
    ) -> None:
        """Halve the budget for good: what did not fit once would not fit again."""
        torch.cuda.empty_cache()
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
    samples = np.frombuffer(value.as_buffer(), dtype="<i2")
    if len(samples) != num_samples:
        raise ModelError(
            f"utterance {utterance_id!r} has {len(samples)} samples in the store, expected "
            f"{num_samples}; run gmp-atl verify"
        )
    return pcm16_to_float(samples)


def to_fp16(x_TD: Tensor, utterance_id: str, layer: int) -> np.ndarray:
    """fp16 [T, D] in C order.

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
    """Audio that fits a GPU beside the model, from what two probes took; fixed on a CPU.

    A CPU gains nothing from larger batches: at a minute the products run at their full rate.
    """
    device = torch_device()
    if device.type != "cuda":
        return _CPU_BATCH_S
    peaks: list[int] = []
    for seconds in _PROBE_S:
        torch.cuda.reset_peak_memory_stats()
        wave_N = torch.zeros(int(seconds * SAMPLE_RATE_HZ), device=device)
        model([wave_N], num_frames(len(wave_N)))
        peaks.append(torch.cuda.max_memory_allocated())
    free_bytes, _ = torch.cuda.mem_get_info()
    return fit_budget_s(_PROBE_S, (peaks[0], peaks[1]), free_bytes)


def fit_budget_s(
    probes_s: tuple[float, float], peaks_bytes: tuple[int, int], free_bytes: int
) -> float:
    """Seconds that fit into a share of ``free_bytes``, memory growing as it did between two probes."""
    slope = (peaks_bytes[1] - peaks_bytes[0]) / (probes_s[1] - probes_s[0])
    if slope <= 0:
        return probes_s[1]
    return max(1.0, _MEMORY_SHARE * free_bytes / slope)
