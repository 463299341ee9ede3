"""Part 7: memory that runs out. Extraction makes its batches smaller, and its features stay the same."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import torch
from torch import Tensor

from benchmarks.harness.gpu import Place, forget_peak_memory, peak_gib
from benchmarks.harness.parts import Rows
from benchmarks.harness.rounds import MeasurementError
from benchmarks.inputs.spoken import hubert, recordings
from benchmarks.subjects.gpu_correctness import relative_error
from benchmarks.subjects.gpu_frames import CONTEXT_FRAMES, WINDOW_FRAMES, Features
from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.device import free_cached_memory
from gmp_atl_dist.errors import GmpAtlError
from gmp_atl_dist.inference.forward import Forward
from gmp_atl_dist.models.backbone import FrameModel

_ROOM_GIB = 3.0
"""Beside what the model takes; a batch of ten minutes needs more."""
_SAME = {"cuda": 2e-2, "cpu": 1e-3}
"""Largest relative error that is rounding: bf16 products differ with the shape of a batch."""


class _Limited:
    """A device that has no memory for more than ``room`` samples at a time, for a machine without a GPU."""

    def __init__(self, model: FrameModel, room: int) -> None:
        self._model, self._room = model, room

    def __call__(self, waves: Sequence[Tensor], most_frames: int) -> list[dict[int, Tensor]]:
        if sum(map(len, waves)) > self._room:
            raise torch.OutOfMemoryError("CUDA out of memory (pretended)")
        return self._model(waves, most_frames)


def measure(place: Place, rows: Rows) -> None:
    """Features without a limit, and below one; then a recording that never fits."""
    device = place.choose()
    size, layer, audio_s = ("base", 12, 900.0) if place.on_gpu else ("tiny", 2, 20.0)
    table = recordings("iemocap", audio_s)
    expected_MD = Features(size, [layer], device, 60.0 if place.on_gpu else 5.0)(table)[layer]
    asked: tuple[float | None, ...] = (audio_s, None) if place.on_gpu else (audio_s,)
    for batch_s in asked:
        free_cached_memory()
        features = _limited(place, size, layer, device, batch_s, _ROOM_GIB)
        forget_peak_memory(device)
        before_s = features.batch_s
        found_MD = features(table)[layer]
        error = relative_error(found_MD, expected_MD)
        what = "as fitted" if batch_s is None else f"of {batch_s:g} s"
        peak = peak_gib(device)
        rows.add(
            f"a batch {what}, with too little memory: it becomes",
            features.batch_s,
            "s",
            note=f"from {before_s:.0f} s" + (f"; peak {peak:.2f} GiB" if peak is not None else ""),
        )
        same = error <= _SAME[place.device] and len(found_MD) == len(expected_MD)
        smaller = features.batch_s < before_s or batch_s is None
        rows.add(
            "features are those without a limit",
            float(same and smaller),
            key="backoff_ok" if batch_s is not None else "",
            goal="1",
            note=f"relative error {error:.2g}",
        )
        if not (same and smaller):
            raise MeasurementError(
                f"with too little memory the batch went from {before_s:.0f} to "
                f"{features.batch_s:.0f} s, and the features are off by {error:.2g}"
            )
    _never_fits(place, rows, size, layer, device, table)


def _limited(
    place: Place,
    size: str,
    layer: int,
    device: torch.device,
    batch_s: float | None,
    room_gib: float,
) -> Features:
    """Features with ``room_gib`` of memory beside the model; without a GPU a device is pretended."""
    if place.on_gpu:
        torch.cuda.set_per_process_memory_fraction(1.0)
        features = Features(size, [layer], device, batch_s)
        free_cached_memory()
        room = torch.cuda.memory_reserved() + room_gib * 2**30
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, room / total))
        return features
    features = Features(size, [layer], device, batch_s)
    model = hubert(size).frame_model(
        [layer], window_frames=WINDOW_FRAMES, context_frames=CONTEXT_FRAMES
    )
    room = int(room_gib * 3 * SAMPLE_RATE_HZ)
    features.forward = Forward(_Limited(model, room), (layer,), batch_s)
    return features


def _never_fits(
    place: Place, rows: Rows, size: str, layer: int, device: torch.device, table: pa.Table
) -> None:
    """The error names the recording, and there is one line of it."""
    longest = max(table["num_samples"].to_pylist())
    alone = table.filter(pa.array([n == longest for n in table["num_samples"].to_pylist()]))
    features = _limited(place, size, layer, device, 60.0, 0.01)
    try:
        features(alone)
    except GmpAtlError as e:
        named = alone["utterance_id"][0].as_py() in str(e)
        rows.add("a recording that never fits is named", float(named), goal="1", note=str(e)[:200])
        return
    raise MeasurementError("a recording for which there is no memory was computed nevertheless")
