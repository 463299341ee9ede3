"""What a device computes against float64: frames in each precision, labels, gradients of an update."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from support.devices import needs_gpu

from benchmarks.inputs.spoken import hubert, recordings
from benchmarks.subjects.gpu_correctness import cosines, relative_error, update_gradients
from benchmarks.subjects.gpu_frames import Features, plain_features
from gmp_atl_dist.audio import num_frames, pcm16_to_float
from gmp_atl_dist.clustering.assignment import make_assigner, nearest_ids
from gmp_atl_dist.clustering.assignment_step import fit_in_memory
from gmp_atl_dist.clustering.state import Fit
from gmp_atl_dist.device import use_bf16
from gmp_atl_dist.models.hubert import pad_waves

pytest_plugins = ["support.devices"]

LAYER = 2
ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return recordings("iemocap", 12.0)


@pytest.fixture(scope="module")
def exact_MD(table: pa.Table) -> np.ndarray:
    """float64 frames of the same weights, on the CPU."""
    model = hubert("tiny").double()
    found: list[np.ndarray] = []
    with torch.inference_mode():
        for pcm16 in table["pcm16"].to_pylist():
            wave = pcm16_to_float(np.frombuffer(pcm16, "<i2"))
            wave_BN, num_samples_B = pad_waves([wave])
            hidden = model.forward_frames(wave_BN.double(), num_samples_B, want=[LAYER]).hidden
            found.append(hidden[LAYER][0, : num_frames(len(wave))].numpy())
    return np.concatenate(found)


@pytest.mark.parametrize("dtype", ROUNDING, ids=["fp32", "bf16"])
def test_the_model_that_is_trained(
    device: torch.device, dtype: torch.dtype, table: pa.Table, exact_MD: np.ndarray
) -> None:
    model = hubert("tiny")
    torch.nn.Module.to(model, device)
    found_MD = plain_features(model, table, LAYER, device, dtype)
    error = relative_error(found_MD, exact_MD)
    assert error <= ROUNDING[dtype]
    # The precision that was asked for is the one that was computed in.
    assert (error > 10 * ROUNDING[torch.float32]) == (dtype == torch.bfloat16)


def test_features_and_labels_as_extracted(
    device: torch.device, table: pa.Table, exact_MD: np.ndarray
) -> None:
    found_MD = Features("tiny", [LAYER], device)(table)[LAYER]
    assert found_MD.dtype == np.float16
    assert relative_error(found_MD, exact_MD) <= (ROUNDING[torch.bfloat16] if use_bf16() else 1e-3)
    assert cosines(found_MD, exact_MD).min() > 0.99
    expected_MD = exact_MD.astype(np.float16)
    (state,) = fit_in_memory([Fit("test", 20, seed=0, iterations=5)], {"all": expected_MD})
    assigner = make_assigner(state.centroids_KD)
    same = nearest_ids(assigner, found_MD) == nearest_ids(assigner, expected_MD)
    assert same.mean() >= (0.98 if use_bf16() else 0.999)


@pytest.mark.parametrize("batch_s", [3.0, None], ids=["small batches", "fitted"])
def test_the_batch_changes_rounding_alone(
    device: torch.device, batch_s: float | None, table: pa.Table
) -> None:
    one = Features("tiny", [LAYER], device, 40.0)(table)[LAYER]
    other = Features("tiny", [LAYER], device, batch_s)(table)[LAYER]
    assert relative_error(one, other.astype(np.float64)) <= (2e-2 if use_bf16() else 1e-3)


@pytest.mark.parametrize("dtype", ROUNDING, ids=["fp32", "bf16"])
def test_gradients_of_an_update(device: torch.device, dtype: torch.dtype, tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    if device == cpu and dtype == torch.float32:
        pytest.skip("it is what the others are compared with")
    expected = update_gradients(cpu, torch.float32, "tiny", 6.0, tmp_path / "cpu")
    found = update_gradients(device, dtype, "tiny", 6.0, tmp_path / "device")
    assert found.keys() == expected.keys()
    wrong = sum(float((found[n] - g).double().norm() ** 2) for n, g in expected.items())
    whole = sum(float(g.double().norm() ** 2) for g in expected.values())
    assert whole > 0
    assert (wrong / whole) ** 0.5 <= (1e-4 if dtype == torch.float32 else 5e-2)


@pytest.mark.parametrize("name", [pytest.param("cuda", marks=needs_gpu)])
def test_bf16_is_what_the_card_has_in_hardware(name: str) -> None:
    assert use_bf16() == (torch.cuda.get_device_capability()[0] >= 8)
