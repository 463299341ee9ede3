"""Part 1: what a GPU computes beside what a CPU computes in fp32, on the same recordings and weights.

Shape suffixes: M frames, D hidden.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness.child import run_alone
from benchmarks.harness.gpu import DeviceName, Place
from benchmarks.harness.machine import usable_cores
from benchmarks.harness.parts import Rows
from benchmarks.inputs.spoken import hubert, recordings
from benchmarks.subjects.gpu_frames import Features, plain_features
from benchmarks.subjects.gpu_updates import Training, train_alone, training_recipe
from gmp_atl_dist.clustering.assignment import make_assigner, nearest_ids
from gmp_atl_dist.clustering.assignment_step import fit_in_memory
from gmp_atl_dist.clustering.state import Fit
from gmp_atl_dist.store.readers import AudioReader
from gmp_atl_dist.training.batch_plan import BatchPlan
from gmp_atl_dist.training.batches import Batch, BatchLoader

_LAYER = {"base": 9, "tiny": 2}
_ITERATIONS = 10
_SMALLEST_NORM = 1e-6
"""Of a parameter's gradient, as a share of the largest: direction means nothing below it."""


def measure(place: Place, rows: Rows) -> None:
    """Frames, labels, the gradients of an update, and the curve of a training."""
    device = place.choose()
    on_gpu = place.on_gpu
    size, audio_s = ("base", 900.0) if on_gpu else ("tiny", 8.0)
    ks = (50, 500) if on_gpu else (5, 20)
    with tempfile.TemporaryDirectory(prefix="gmp-atl-bench-") as name:
        folder = Path(name)
        run_alone(partial(_reference, size, audio_s, folder / "frames.npy"), usable_cores())
        _frames(place, device, rows, size, audio_s, ks, np.load(folder / "frames.npy"))
        _gradients(place, device, rows, size, folder)
    _curve(place, rows)


def _reference(size: str, audio_s: float, npy: Path) -> None:
    Place("cpu", 0).choose()
    cpu, table = torch.device("cpu"), recordings("iemocap", audio_s)
    np.save(npy, plain_features(hubert(size), table, _LAYER[size], cpu, torch.float32))


def _frames(
    place: Place,
    device: torch.device,
    rows: Rows,
    size: str,
    audio_s: float,
    ks: tuple[int, ...],
    expected_MD: np.ndarray,
) -> None:
    table, layer = recordings("iemocap", audio_s), _LAYER[size]
    model = hubert(size)
    torch.nn.Module.to(model, device)
    for dtype, key in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
        found_MD = plain_features(model, table, layer, device, dtype)
        error = relative_error(found_MD, expected_MD)
        rows.add(f"frames, model in {key}: relative error", error, key=f"frames_error_{key}")
    extracted_MD = Features(size, [layer], device)(table)[layer]
    rows.add(
        "frames as extracted: relative error",
        relative_error(extracted_MD, expected_MD),
        key="frames_error_extracted",
    )
    rows.add(
        "frames as extracted: smallest cosine with the CPU's",
        float(cosines(extracted_MD, expected_MD).min()),
    )
    narrow_MD = expected_MD.astype(np.float16)
    fits = [Fit(f"k = {k}", k, seed=0, iterations=_ITERATIONS) for k in ks]
    states = fit_in_memory(fits, {"all": narrow_MD}, threads=usable_cores())
    gpus = int(place.on_gpu)
    for k, name, state in zip(ks, ("k50", "k500"), states, strict=True):
        theirs = nearest_ids(make_assigner(state.centroids_KD), narrow_MD)
        ours = nearest_ids(make_assigner(state.centroids_KD, gpus=gpus), extracted_MD)
        rows.add(
            f"labels equal to the CPU's, k = {k}",
            float((ours == theirs).mean()),
            key=f"labels_equal_{name}",
            goal=">= 0.999" if k == 500 else "",
            note=f"{len(ours)} frames, assigned on {'the GPU' if gpus else 'the CPU'}",
        )


def relative_error(found_MD: np.ndarray, expected_MD: np.ndarray) -> float:
    """Norm of the difference over the norm of what is expected."""
    difference = found_MD.astype(np.float64) - expected_MD
    return float(np.linalg.norm(difference) / np.linalg.norm(expected_MD.astype(np.float64)))


def cosines(a_MD: np.ndarray, b_MD: np.ndarray) -> np.ndarray:
    """Of each pair of rows, float64 [M]."""
    a, b = a_MD.astype(np.float64), b_MD.astype(np.float64)
    return (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def _gradients(place: Place, device: torch.device, rows: Rows, size: str, folder: Path) -> None:
    seconds = 60.0 if place.on_gpu else 6.0
    run_alone(partial(_save_gradients, size, seconds, folder), usable_cores())
    expected = torch.load(folder / "gradients.pt", weights_only=True)
    largest = max(float(g.norm()) for g in expected.values())
    for dtype, key in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
        found = update_gradients(device, dtype, size, seconds, folder / key)
        wrong = sum(
            float((found[n].double() - g.double()).norm() ** 2) for n, g in expected.items()
        )
        whole = sum(float(g.double().norm() ** 2) for g in expected.values())
        rows.add(
            f"gradients of an update in {key}: relative error",
            (wrong / whole) ** 0.5,
            key=f"gradient_error_{key}",
        )
        worst = min(
            float(torch.cosine_similarity(found[n].double().flatten(), g.double().flatten(), dim=0))
            for n, g in expected.items()
            if float(g.norm()) > _SMALLEST_NORM * largest
        )
        rows.add(f"gradients in {key}: smallest cosine of a parameter's with the CPU's", worst)


def _save_gradients(size: str, seconds: float, folder: Path) -> None:
    Place("cpu", 0).choose()
    found = update_gradients(torch.device("cpu"), torch.float32, size, seconds, folder / "cpu")
    torch.save(found, folder / "gradients.pt")


def update_gradients(
    device: torch.device, dtype: torch.dtype, size: str, seconds: float, folder: Path
) -> dict[str, torch.Tensor]:
    """fp32 gradients on the CPU, by parameter, of one update of ``retrain`` without dropout."""
    training = Training(size, seconds, updates=1, audio_s=seconds, dropout=0.0)
    recipe, _ = training_recipe(folder, training)
    rows = recipe.utterances
    plan = BatchPlan(
        rows.num_samples, rows.part_numbers, batch_s=seconds, max_samples=10**9, seed=0
    )
    loader = BatchLoader(
        plan,
        rows.rows,
        AudioReader(recipe.corpus),
        rank=0,
        world_size=1,
        micro_batches=1,
        max_samples=10**9,
        seed=0,
    )
    batch: Batch = next(iter(loader.updates(0, 1)))[1][0].to(device)
    model = recipe.build().to(device).train()
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        losses = recipe.losses(model, batch)
    terms = zip(recipe.factors, losses.sums, recipe.counts(batch), strict=True)
    loss = sum((total * (factor / n) for factor, total, n in terms), torch.zeros((), device=device))
    loss.backward()
    return {n: p.grad.float().cpu() for n, p in model.named_parameters() if p.grad is not None}


def _curve(place: Place, rows: Rows) -> None:
    updates = 200 if place.on_gpu else 8
    training = Training(
        size="mini" if place.on_gpu else "tiny",
        batch_s=32.0 if place.on_gpu else 4.0,
        updates=updates,
        audio_s=320.0 if place.on_gpu else 12.0,
        dropout=0.0,
    )
    devices: tuple[DeviceName, DeviceName] = ("cpu", place.device)
    curves = [
        np.array(run_alone(partial(train_alone, device, training), usable_cores()).curve)
        for device in devices
    ]
    difference = np.abs(curves[1] - curves[0]) / np.abs(curves[0])
    rows.add(
        f"curve of {updates} updates: largest relative difference of the loss from the CPU's",
        float(difference.max()),
        key="curve_difference",
        note=f"the loss falls from {curves[0][0]:.3f} to {curves[0][-1]:.3f} on the CPU, to "
        f"{curves[1][-1]:.3f} here",
    )
