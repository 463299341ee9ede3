"""Part 7: memory that runs out. Extraction makes its batches smaller, and its features stay the same.

Shape suffixes: M frames of all recordings, D hidden.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
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

_ROOMS = {"cuda": (4.0, 3.0, 2.0, 1.5, 1.0), "cpu": (12.0,)}
"""Beside what the model takes, GiB, until a batch does not fit; without a GPU, seconds of padded audio."""
_NO_ROOM = {"cuda": 0.01, "cpu": 0.5}
_SAME = {"cuda": 2e-2, "cpu": 1e-3}
"""Largest relative error that is rounding: bf16 products differ with the shape of a batch."""


class _Limited:
    """A device that has no memory for more than ``room`` padded samples, for a machine without a GPU."""

    def __init__(self, model: FrameModel, room: int) -> None:
        self._model, self._room = model, room

    def __call__(self, waves: Sequence[Tensor], most_frames: int) -> list[dict[int, Tensor]]:
        if max(map(len, waves)) * len(waves) > self._room:
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
        features, before_s, found_MD = _without_room(place, size, layer, device, batch_s, table)
        what = "as fitted" if batch_s is None else f"of {batch_s:g} s"
        _judge(place, rows, what, features, before_s, found_MD, expected_MD)
    _never_fits(place, rows, size, layer, device, table)


def _without_room(
    place: Place,
    size: str,
    layer: int,
    device: torch.device,
    batch_s: float | None,
    table: pa.Table,
) -> tuple[Features, float, np.ndarray]:
    """What computed the table, its batch before that in seconds, and fp16 [M, D]: with the most room that
    is too little, or with the least that there is."""
    tried: list[tuple[Features, float, np.ndarray]] = []
    for room in _ROOMS[place.device]:
        tried.clear()
        free_cached_memory()
        features = _limited(place, size, layer, device, batch_s, room)
        forget_peak_memory(device)
        before_s = features.batch_s
        tried.append((features, before_s, features(table)[layer]))
        if features.batch_s < before_s:
            break
    return tried[-1]


def _judge(
    place: Place,
    rows: Rows,
    what: str,
    features: Features,
    before_s: float,
    found_MD: np.ndarray,
    expected_MD: np.ndarray,
) -> None:
    """Add the figures.

    Raises:
        MeasurementError: the batch did not become smaller, or features are others.
    """
    error = relative_error(found_MD, expected_MD)
    peak = peak_gib(torch.device(place.device))
    rows.add(
        f"a batch {what}, with too little memory: it becomes",
        features.batch_s,
        "s",
        note=f"from {before_s:.0f} s" + (f"; peak {peak:.2f} GiB" if peak is not None else ""),
    )
    good = error <= _SAME[place.device] and features.batch_s < before_s
    rows.add(
        f"a batch {what}: features are those without a limit",
        float(good),
        key="backoff_ok",
        goal="1",
        note=f"relative error {error:.2g}",
    )
    if not good:
        raise MeasurementError(
            f"with too little memory the batch went from {before_s:.0f} to "
            f"{features.batch_s:.0f} s, and the features are off by {error:.2g}"
        )


def _limited(
    place: Place,
    size: str,
    layer: int,
    device: torch.device,
    batch_s: float | None,
    room: float,
) -> Features:
    """Features with ``room`` beside the model, see ``_ROOMS``; without a GPU a device is pretended."""
    if place.on_gpu:
        torch.cuda.set_per_process_memory_fraction(1.0)
        features = Features(size, [layer], device, batch_s)
        free_cached_memory()
        most = torch.cuda.memory_reserved() + room * 2**30
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, most / total))
        return features
    features = Features(size, [layer], device, batch_s)
    model = hubert(size).frame_model(
        [layer], window_frames=WINDOW_FRAMES, context_frames=CONTEXT_FRAMES
    )
    limited = _Limited(model, int(room * SAMPLE_RATE_HZ))
    features.forward = Forward(limited, (layer,), batch_s)
    return features


def _never_fits(
    place: Place, rows: Rows, size: str, layer: int, device: torch.device, table: pa.Table
) -> None:
    """The error names the recording, and there is one line of it."""
    longest = max(table["num_samples"].to_pylist())
    alone = table.filter(pa.array([n == longest for n in table["num_samples"].to_pylist()]))
    features = _limited(place, size, layer, device, 60.0, _NO_ROOM[place.device])
    try:
        features(alone)
    except GmpAtlError as e:
        named = alone["utterance_id"][0].as_py() in str(e)
        rows.add("a recording that never fits is named", float(named), goal="1", note=str(e)[:200])
        return
    raise MeasurementError("a recording for which there is no memory was computed nevertheless")
