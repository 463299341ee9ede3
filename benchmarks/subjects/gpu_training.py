"""Part 4: a training step by the audio of a pass: updates per second, share of the matmul rate, memory."""

from __future__ import annotations

import time
from functools import partial

from benchmarks.harness.child import run_alone
from benchmarks.harness.gpu import Place
from benchmarks.harness.machine import usable_cores
from benchmarks.harness.parts import Rows
from benchmarks.subjects.gpu_updates import Trained, Training, train_alone

_UPDATES, _WARM_UP = 24, 6
_GOALS = {"base": ">= 0.45", "large": ">= 0.5"}
_NO_MEMORY = ("OutOfMemoryError", "CUBLAS_STATUS_ALLOC_FAILED", "out of memory")


def measure(place: Place, rows: Rows) -> None:
    """Retraining of each size, each amount of audio in a process of its own."""
    begun_s = time.monotonic()
    sizes = ("base", "large") if place.on_gpu else ("tiny",)
    passes_s = (30.0, 75.0, 150.0, 300.0) if place.on_gpu else (4.0,)
    for size in sizes:
        best: float = 0.0
        for batch_s in passes_s:
            what = f"{size}, {batch_s:g} s of audio a pass"
            if time.monotonic() - begun_s > 0.8 * place.seconds:
                rows.add(what, None, note="no time left")
                continue
            trained = _train(place, rows, what, size, batch_s)
            if trained is None:
                break
            share = trained.tflops / trained.matmul_tflops
            best = max(best, share)
            _add(rows, what, share, trained)
        rows.add(
            f"{size}: best share of the matmul rate",
            best or None,
            key=f"train_mfu_{size}" if size in _GOALS else "",
            goal=_GOALS.get(size, ""),
        )


def _train(place: Place, rows: Rows, what: str, size: str, batch_s: float) -> Trained | None:
    """None where the memory is too small, which is a result as well."""
    updates, warm_up = (_UPDATES, _WARM_UP) if place.on_gpu else (4, 1)
    training = Training(size, batch_s, updates, audio_s=4 * batch_s, warm_up=warm_up)
    try:
        return run_alone(partial(train_alone, place.device, training), usable_cores())
    except RuntimeError as e:
        if not any(word in str(e) for word in _NO_MEMORY):
            raise
        rows.add(what, None, note="does not fit into the memory")
        return None


def _add(rows: Rows, what: str, share: float, trained: Trained) -> None:
    note = (
        f"{trained.tflops:.3g} of {trained.matmul_tflops:.3g} TFLOP/s; an update has "
        f"{trained.audio_per_update_s:.0f} s of audio"
    )
    rows.add(f"{what}: share of the matmul rate", share, note=note)
    rows.add(f"{what}: updates per second", trained.updates_per_s)
    rows.add(f"{what}: audio per second", trained.updates_per_s * trained.audio_per_update_s, "s")
    if trained.peak_gib is not None:
        rows.add(f"{what}: peak memory", trained.peak_gib, "GiB")
    if trained.busy is not None:
        rows.add(
            f"{what}: share of the time in which the GPU is busy, start included", trained.busy
        )
