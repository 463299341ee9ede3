"""Frame features of a table of recordings, in batches that fit into the device's memory.

Shape suffixes: N samples, T frames, D hidden.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt
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
from gmp_atl_dist.gpu_state import full_memory_named, is_out_of_memory
from gmp_atl_dist.inference.cost import cost_batches
from gmp_atl_dist.inference.sending import as_waves, send_clips
from gmp_atl_dist.inference.started import StartedBatch, StartedWork
from gmp_atl_dist.models.backbone import FrameModel
from gmp_atl_dist.models.slots import SlotModel
from gmp_atl_dist.models.source import backbone_from_files
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.features import UtteranceFrames
from gmp_atl_dist.transfers import CopyLane, new_lanes

_CPU_BATCH_S = 60.0
_LEAST_BATCH_SAMPLES = SAMPLE_RATE_HZ
_PROBE_CLIP_S = 10.0
_PROBE_S = (60.0, 120.0)
"""The convolutions of more audio than this are computed in pieces, so memory grows more slowly then."""
_TABLES_AT_ONCE = 2
"""While one is computed, another is sent, its kernels are started, and results are fetched."""
_MEMORY_SHARE = 0.7 / _TABLES_AT_ONCE
"""Of the free memory: the allocator's blocks never fill it completely."""


Loader = Callable[[Artifact, tuple[int, ...], int, int], FrameModel]
"""Loads (model artefact, layers, frames of a window, frames of its context) to a model; picklable."""

ResultT = TypeVar("ResultT", covariant=True)


class BatchWork(Protocol[ResultT]):
    """What is done with the frames of a batch where they were computed."""

    def __call__(
        self,
        frames: Mapping[int, Tensor],
        ids: Sequence[str],
        counts: Sequence[int],
        lane: CopyLane,
    ) -> ResultT:
        """Start it on ``lane``.

        Args:
            frames: (M, D) by layer on the device, the frames of all utterances one after another.
            ids: of the utterances.
            counts: frames of each.
            lane: on which the frames are computed. What it fetches is there when its work is done.
        """
        ...


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
        model: the inference path of a backbone, or another model of frames.
        layers: the wanted layers.
        batch_s: seconds of audio per batch; None: fitted to the device's memory, once, by a ``FrameModel``.
    """

    def __init__(
        self, model: FrameModel | SlotModel, layers: tuple[int, ...], batch_s: float | None
    ) -> None:
        self._model = model
        self._layers = layers
        fitted_s = _fitted_batch_s(model) if batch_s is None else batch_s
        self.budget_samples = int(fitted_s * SAMPLE_RATE_HZ)
        self._lanes = deque((lane, lane.mark()) for lane in new_lanes(_TABLES_AT_ONCE))

    def __call__(self, table: pa.Table) -> dict[int, list[UtteranceFrames]]:
        """fp16 features by layer, one entry per row of ``table``, in its order; see :meth:`start`."""
        return self.start(table)()

    def start(self, table: pa.Table) -> StartedWork[dict[int, list[UtteranceFrames]]]:
        """Start the work on a table, and return what waits for the features.

        Raises:
            ModelError: as :meth:`start_batches`. What is returned raises it where features are not finite, or
                too large for fp16. It names the utterance.
            WorkerError: as :meth:`start_batches`.
        """
        ids: list[str] = table["utterance_id"].to_pylist()
        batches = self.start_batches(table, StartedBatch.of)

        def features() -> dict[int, list[UtteranceFrames]]:
            found = {u.utterance_id: u for batch in batches.results() for u in batch.utterances()}
            return {
                layer: [UtteranceFrames(i, found[i].frames[layer]) for i in ids]
                for layer in self._layers
            }

        return StartedWork(batches.wait, features)

    def start_batches(
        self, table: pa.Table, work: BatchWork[ResultT]
    ) -> StartedWork[list[ResultT]]:
        """Start the frames of a table and ``work`` on them; return what waits for the results of the batches.

        On a GPU two tables are in work. On a CPU the work is done when this returns.

        Raises:
            ModelError: not as many samples or features as expected.
            WorkerError: a single recording is too long for the device's memory.
        """
        lane, done = self._lanes.popleft()
        done()
        ids: list[str] = table["utterance_id"].to_pylist()
        lengths = dict(enumerate(table["num_samples"].to_pylist()))
        pcm16 = table["pcm16"].combine_chunks()
        started: list[ResultT] = []
        pending = self._batches(lengths)
        try:
            with lane.working():
                while pending:
                    rows = pending.pop()
                    clips = [stored_samples(pcm16[row], ids[row], lengths[row]) for row in rows]
                    try:
                        started.append(self._run(clips, [ids[row] for row in rows], lane, work))
                    except RuntimeError as e:
                        if not is_out_of_memory(e):
                            raise
                        self._back_off(rows, ids, lengths, lane, e)
                        rest = {row: lengths[row] for batch in [rows, *pending] for row in batch}
                        pending = self._batches(rest)
        finally:
            finished = lane.mark()
            self._lanes.append((lane, finished))

        return StartedWork(finished, lambda: started)

    def _batches(self, lengths: dict[int, int]) -> list[list[int]]:
        """The last one is to be computed first."""
        return list(cost_batches(lengths, self.budget_samples, padded=False))[::-1]

    def _run(
        self, clips: list[np.ndarray], ids: list[str], lane: CopyLane, work: BatchWork[ResultT]
    ) -> ResultT:
        most_frames = max(1, self.budget_samples // FRAME_HOP_SAMPLES)
        layout, samples_N = send_clips(clips, lane)
        if isinstance(self._model, SlotModel):
            frames = self._model.frames(samples_N, layout, most_frames, lane)
        else:
            outputs = self._model(as_waves(layout, samples_N), most_frames)
            frames = _joined(outputs, clips, ids)
        return work(frames, ids, layout.num_frames_B.tolist(), lane)

    def _back_off(
        self,
        rows: list[int],
        ids: list[str],
        lengths: dict[int, int],
        lane: CopyLane,
        error: Exception,
    ) -> None:
        """Halve the budget for all later batches too: they would not fit either."""
        # Memory that work still uses cannot be given back.
        for done in (lane.mark(), *(done for _, done in self._lanes)):
            done()
        free_cached_memory()
        held = sum(lengths[row] for row in rows)
        smaller = min(self.budget_samples, held) // 2
        if smaller < _LEAST_BATCH_SAMPLES:
            raise WorkerError(
                f"utterance {ids[rows[0]]!r} of {lengths[rows[0]] / SAMPLE_RATE_HZ:.1f} s does not "
                f"fit into the device's memory ({error}); lower extract.max_window_s, or give the "
                f"worker a larger device"
            ) from error
        self.budget_samples = smaller


def _joined(
    outputs: Sequence[Mapping[int, Tensor]], clips: Sequence[np.ndarray], ids: Sequence[str]
) -> dict[int, Tensor]:
    """fp16 (M, D) by layer, of a model that gives the frames of each clip."""
    for clip_N, name, output in zip(clips, ids, outputs, strict=True):
        counts = {len(x_TD) for x_TD in output.values()}
        if counts != {num_frames(len(clip_N))}:
            raise ModelError(
                f"utterance {name!r}: the model gave {sorted(counts)} frames, expected "
                f"{num_frames(len(clip_N))} for {len(clip_N)} samples; use a model with a frame every "
                f"{FRAME_HOP_SAMPLES} samples"
            )
    return {layer: torch.cat([x[layer].half() for x in outputs]) for layer in outputs[0]}


def stored_samples(
    value: pa.BinaryScalar, utterance_id: str, num_samples: int
) -> npt.NDArray[np.int16]:
    """Stored 16-bit samples (N,); a view. Raises ModelError where their number is wrong."""
    samples = np.frombuffer(value.as_buffer(), dtype="<i2")
    if len(samples) != num_samples:
        raise ModelError(
            f"utterance {utterance_id!r} has {len(samples)} samples in the store, expected "
            f"{num_samples}; run gmp-atl verify"
        )
    return samples


def stored_wave(value: pa.BinaryScalar, utterance_id: str, num_samples: int) -> np.ndarray:
    """float32 (N,) from stored 16-bit samples. Raises ModelError where their number is wrong."""
    return pcm16_to_float(stored_samples(value, utterance_id, num_samples))


def _fitted_batch_s(model: FrameModel | SlotModel) -> float:
    """Seconds of audio that fit into the GPU's free memory, from the memory of two probes; fixed on a CPU.

    A CPU gains nothing from batches of more than a minute: its matrix products already run at full rate.
    """
    if not has_gpu():
        return _CPU_BATCH_S
    of_waves = cast("FrameModel", model)

    def probe(seconds: float) -> None:
        wave_N = torch.zeros(int(_PROBE_CLIP_S * SAMPLE_RATE_HZ), device=torch_device())
        of_waves(
            [wave_N] * round(seconds / _PROBE_CLIP_S),
            int(seconds * SAMPLE_RATE_HZ) // FRAME_HOP_SAMPLES,
        )

    with full_memory_named(f"a probe of {_PROBE_S[1]:g} s of audio, to fit batches to the memory"):
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
