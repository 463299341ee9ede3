"""Trainings on a device: their curve beside the CPU's, and a checkpoint that goes from one to the other."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from support.devices import needs_gpu

from benchmarks.harness.child import run_alone
from benchmarks.harness.gpu import DeviceName
from benchmarks.subjects.gpu_updates import Training, train_alone
from tests.support.gpu_training import EVERY, TRAINING, train_in


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("device", "updates", "rel"),
    [("cpu", 20, 1e-3), pytest.param("cuda", 200, 5e-2, marks=needs_gpu)],
)
def test_the_curve_is_that_of_one_core(device: DeviceName, updates: int, rel: float) -> None:
    training = Training("tiny", batch_s=4.0, updates=updates, audio_s=12.0, dropout=0.0)
    expected = run_alone(partial(train_alone, "cpu", training), threads=1)
    found = run_alone(partial(train_alone, device, training), threads=2)
    assert len(found.curve) == updates
    assert found.curve == pytest.approx(expected.curve, rel=rel)
    assert expected.curve[-1] < expected.curve[0]


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("device", "rel"), [("cpu", 1e-3), pytest.param("cuda", 2e-2, marks=needs_gpu)]
)
def test_micro_batches_are_joined_where_the_memory_of_a_gpu_takes_them(
    device: DeviceName, rel: float, tmp_path: Path
) -> None:
    one, four = tmp_path / "one", tmp_path / "four"
    one.mkdir()
    four.mkdir()
    expected = run_alone(partial(train_in, one, "cpu", None), threads=1)
    found = run_alone(partial(train_in, four, device, None, 4), threads=1)
    assert found == pytest.approx(expected, rel=rel)
    states = sorted((four / "out").glob("checkpoints/*/*/files/state.json"))
    (pass_s,) = {json.loads(path.read_text())["pass_s"] for path in states}
    assert pass_s == 0 if device == "cpu" else pass_s > 4


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("first", "second", "rel"),
    [
        ("cpu", "cpu", 1e-5),
        pytest.param("cuda", "cpu", 2e-2, marks=needs_gpu),
        pytest.param("cpu", "cuda", 2e-2, marks=needs_gpu),
        pytest.param("cuda", "cuda", 2e-2, marks=needs_gpu),
    ],
)
def test_a_checkpoint_is_continued_on_the_other_device(
    first: DeviceName, second: DeviceName, rel: float, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    expected = run_alone(partial(train_in, whole, "cpu", None), threads=1)
    assert run_alone(partial(train_in, cut, first, 1), threads=1) == []
    steps = sorted(int(p.name.partition("-")[0]) for p in (cut / "out").glob("checkpoints/*/*-*"))
    assert steps[0] == EVERY
    found = run_alone(partial(train_in, cut, second, None), threads=1)
    assert len(found) == TRAINING.updates
    assert found == pytest.approx(expected, rel=rel)
