"""Assignment steps on devices, with CPUs in their place: exact sums, the same bytes, frames that stay."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gmp_atl_dist.clustering import assignment_step, device_search, device_step
from gmp_atl_dist.clustering.assignment import (
    BLOCK_ROWS,
    FaissAssigner,
    as_floats,
    make_assigner,
    nearest_ids,
    unit_rows,
)
from gmp_atl_dist.clustering.assignment_step import AssignmentStep, Step, fit_in_memory, make_step
from gmp_atl_dist.clustering.device import Copier, free_bytes
from gmp_atl_dist.clustering.device_search import TorchSearch, tf32_halves
from gmp_atl_dist.clustering.device_step import DeviceStep
from gmp_atl_dist.clustering.engines import Engine, EngineChoice, chosen_engine, describe_engine
from gmp_atl_dist.clustering.fixed_point import add_rows, fraction_bits, sums_of_squares
from gmp_atl_dist.clustering.frame_parts import FramePart
from gmp_atl_dist.clustering.state import Fit, Metric, Request, State, state_to_bytes
from gmp_atl_dist.clustering.statistics import ClusterStatistics, NotFiniteError
from gmp_atl_dist.errors import ModelError

CPU = torch.device("cpu")
ENGINES: tuple[Engine, ...] = ("faiss", "torch")
EVERYTHING = 1 << 40


def frames(seed: int, count: int = 3000, dim: int = 12, k: int = 9) -> np.ndarray:
    """fp16 [count, dim] around ``k`` centres."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(scale=2.0, size=(k, dim))
    x_MD = centres[rng.integers(k, size=count)] + 2.0 * rng.normal(size=(count, dim))
    return x_MD.astype(np.float16)


def step_on(engine: Engine, devices: int = 1, room: int = 0, block_rows: int = 256) -> DeviceStep:
    return DeviceStep(engine, [CPU] * devices, block_rows=block_rows, room=lambda _: room)


def fit_with(step: Step, x_MD: np.ndarray, metric: Metric = "euclidean") -> State:
    start_KD = as_floats(x_MD[:9])
    fit = Fit("fit", 9, 0, metric=metric, iterations=8, tolerance=0.0)
    start_KD = unit_rows(start_KD) if metric == "cosine" else start_KD
    (state,) = fit_in_memory([fit], {"all": x_MD}, initial=[start_KD], step=step)
    return state


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_takes_the_updates_of_faiss_on_a_cpu(engine: Engine, metric: Metric) -> None:
    x_MD = frames(1)
    expected = fit_with(AssignmentStep(1), x_MD, metric)
    found = fit_with(step_on(engine), x_MD, metric)
    assert found.updates == expected.updates == 8
    if metric == "euclidean":
        # The same assignments and exact sums of fp16: the same bytes.
        assert found.centroids_KD.tobytes() == expected.centroids_KD.tobytes()
    np.testing.assert_allclose(found.centroids_KD, expected.centroids_KD, rtol=1e-5, atol=1e-6)
    assert found.counts_K is not None
    assert expected.counts_K is not None
    assert found.counts_K.tolist() == expected.counts_K.tolist()
    assert found.mean_squared_distances == pytest.approx(expected.mean_squared_distances, rel=1e-5)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_devices_and_memory_change_no_byte(engine: Engine, metric: Metric, dtype: type) -> None:
    x_MD = frames(2).astype(dtype) * dtype(1.1)
    expected = state_to_bytes(fit_with(step_on(engine), x_MD, metric))
    for devices, room in product((1, 2, 3), (0, EVERYTHING)):
        found = fit_with(step_on(engine, devices, room), x_MD, metric)
        assert state_to_bytes(found) == expected, (devices, room)


def statistics_of(step: Step, requests: Sequence[Request], *parts: np.ndarray) -> list[bytes]:
    found = step.over(requests, [held(str(i), {"all": x}) for i, x in enumerate(parts)])
    return [
        b"".join(
            np.ascontiguousarray(getattr(of_one, name)).tobytes()
            for name in ClusterStatistics.__dataclass_fields__
        )
        for of_one in found
    ]


def held(key: str, of_groups: Mapping[str, np.ndarray]) -> FramePart:
    return FramePart(key, lambda: of_groups)


def test_many_frames_are_added_in_several_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many frames as an accumulator holds, and then the next ones: also the same on any devices."""
    x_MD = frames(3)
    requests = [Request("all", "euclidean", as_floats(x_MD[:5]))]
    (whole,) = step_on("torch").over(requests, [held("a", {"all": x_MD})])
    monkeypatch.setattr(device_step, "MOST_ROWS", 600)
    (windows,) = step_on("torch").over(requests, [held("a", {"all": x_MD})])
    assert windows.sums_KD.tobytes() == whole.sums_KD.tobytes()
    assert windows.counts_K.tolist() == whole.counts_K.tolist()
    assert windows.far_squared_F.tolist() == whole.far_squared_F.tolist()
    one, two = (statistics_of(step_on("torch", n), requests, x_MD, x_MD[::2]) for n in (1, 2))
    assert one == two


def test_an_empty_cluster_is_relocated_to_the_same_frame() -> None:
    x_MD = frames(4, count=1500)
    start_KD = as_floats(x_MD[:9])
    start_KD[3] = 500.0
    fit = Fit("fit", 9, 0, iterations=4, tolerance=0.0)
    states = [
        fit_in_memory([fit], {"all": x_MD}, initial=[start_KD], step=step)[0]
        for step in (AssignmentStep(1), step_on("torch", 2), step_on("faiss"))
    ]
    assert [state.relocated for state in states] == [1, 1, 1]
    assert len({state.centroids_KD.tobytes() for state in states}) == 1


def test_frames_are_read_and_copied_once() -> None:
    x_MD = frames(5)
    read: list[str] = []
    forgotten: list[str] = []

    def part(key: str) -> FramePart:
        def load() -> Mapping[str, np.ndarray]:
            read.append(key)
            return {"all": x_MD}

        return FramePart(key, load, lambda: forgotten.append(key))

    requests = [Request("all", "euclidean", as_floats(x_MD[:5]))]
    one_part = x_MD.nbytes
    step = step_on("torch", block_rows=1000)
    room = [step.working_bytes(requests) + one_part, step.working_bytes(requests) + one_part - 1]
    step = DeviceStep("torch", [CPU], block_rows=1000, room=lambda _: room[min(len(read), 2) - 1])
    results = {statistics_bytes(step.over(requests, [part("a"), part("b")])) for _ in range(4)}
    # "a" had room and stays; "b" is read and copied in each assignment step. A part has three blocks.
    assert read == ["a", "b", "b", "b", "b"]
    assert forgotten == ["a"]
    assert step.copiers[0].copies == 3 + 4 * 3
    assert len(results) == 1
    step.forget()
    step.over(requests, [part("a")])
    assert read.count("a") == 2


def test_a_device_that_somebody_else_fills_gets_frames_in_each_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x_MD = frames(5)
    expected = state_to_bytes(fit_with(step_on("torch"), x_MD))
    copy, full = Copier.to_device, [True]

    def to_device(self: Copier, x_MD: np.ndarray) -> torch.Tensor:
        if full.pop():
            full.append(False)
            raise torch.OutOfMemoryError
        full.append(False)
        return copy(self, x_MD)

    monkeypatch.setattr(Copier, "to_device", to_device)
    assert state_to_bytes(fit_with(step_on("torch", room=EVERYTHING), x_MD)) == expected
    assert full == [False]


def test_frames_in_memory_are_given_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a part of them stays on a GPU where all do not; rows in errors count from the first."""
    x_MD = frames(9, count=10_000)
    whole = [state_to_bytes(fit_with(step, x_MD)) for step in (AssignmentStep(2), step_on("torch"))]
    monkeypatch.setattr(assignment_step, "_PART_ROWS", 2 * BLOCK_ROWS)
    parts = [state_to_bytes(fit_with(step, x_MD)) for step in (AssignmentStep(2), step_on("torch"))]
    assert parts == whole
    x_MD[9_000] = np.nan
    with pytest.raises(ModelError, match="frame 9000 is not finite"):
        fit_with(step_on("torch"), x_MD)


def statistics_bytes(found: Sequence[ClusterStatistics]) -> bytes:
    return b"".join(s.sums_KD.tobytes() + s.squared_distances_K.tobytes() for s in found)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), exponent=st.integers(-20, 15))
def test_sums_of_fp16_are_exact_in_any_order(seed: int, exponent: int) -> None:
    rng = np.random.default_rng(seed)
    x_MD = (rng.normal(size=(200, 3)) * 2.0**exponent).clip(-65504, 65504).astype(np.float16)
    ids_M = rng.integers(4, size=len(x_MD))
    check_exact(x_MD, ids_M, rng.permutation(len(x_MD)))


def test_sums_stay_exact_where_fp64_would_round() -> None:
    """The largest and the smallest fp16: fp64 loses the small one once the sum is above 2^29."""
    x_MD = np.full((40_000, 1), 65504, np.float16)
    x_MD[::2] = 2.0**-24
    ids_M = np.zeros(len(x_MD), np.int64)
    check_exact(x_MD, ids_M, np.argsort(x_MD[:, 0], kind="stable"))
    # What would be lost: in this order fp64 gives another sum.
    in_order = np.cumsum(np.sort(x_MD[:, 0].astype(np.float64))[::-1])[-1]
    assert in_order != math.fsum(x_MD[:, 0].astype(np.float64))


def check_exact(x_MD: np.ndarray, ids_M: np.ndarray, permutation: np.ndarray) -> None:
    k, dim = int(ids_M.max()) + 1, x_MD.shape[1]
    exact_KD = [
        [math.fsum(x_MD[ids_M == number, d].astype(np.float64)) for d in range(dim)]
        for number in range(k)
    ]
    for order in (np.arange(len(x_MD)), permutation):
        sums_KD = torch.zeros((k, dim), dtype=torch.int64)
        x, ids = torch.from_numpy(x_MD[order]), torch.from_numpy(ids_M[order])
        add_rows(sums_KD, ids, x.float(), fraction_bits(x_MD, "euclidean"))
        assert np.ldexp(sums_KD.numpy().astype(np.float64), -24).tolist() == exact_KD


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), exponent=st.integers(-120, 120))
def test_sums_of_fp32_and_of_distances_are_near_and_in_any_order_the_same(
    seed: int, exponent: int
) -> None:
    rng = np.random.default_rng(seed)
    x_MD = (rng.uniform(0.1, 1, size=(500, 2)) * 2.0**exponent).astype(np.float32)
    ids_M = rng.integers(3, size=500)
    bits = fraction_bits(x_MD, "euclidean")
    found: set[bytes] = set()
    for order in (np.arange(500), rng.permutation(500)):
        ids, x = torch.from_numpy(ids_M[order]), torch.from_numpy(x_MD[order])
        sums_KD = torch.zeros((3, 2), dtype=torch.int64)
        add_rows(sums_KD, ids, x, bits)
        squares_K = sums_of_squares(x[:, 0].contiguous(), ids, 3)
        found.add(sums_KD.numpy().tobytes() + squares_K.numpy().tobytes())
        values = np.ldexp(sums_KD.numpy().astype(np.float64), -bits)
        for k, d in product(range(3), range(2)):
            expected = math.fsum(x_MD[ids_M == k, d].astype(np.float64))
            assert values[k, d] == pytest.approx(expected, rel=1e-9)
            if d == 0:
                assert float(squares_K[k]) == pytest.approx(expected, rel=1e-10)
    assert len(found) == 1


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_frame_that_is_not_finite_is_named(engine: Engine, value: float, devices: int) -> None:
    x_MD = frames(6)
    requests = [Request("all", metric, as_floats(x_MD[:5])) for metric in ("euclidean", "cosine")]
    x_MD[700, 3] = value
    parts = [held("first", {"all": frames(7)}), held("second", {"all": x_MD})]
    with pytest.raises(NotFiniteError) as raised:
        step_on(engine, devices).over(requests, parts)
    assert (raised.value.part, raised.value.group, raised.value.row) == ("second", "all", 700)


@pytest.mark.parametrize(
    ("wrong_id", "distance"), [(0, 0.0), (0, math.nan), (-1, 3.4028234e38), (1 << 40, 1.0)]
)
def test_an_engine_that_hides_such_a_frame_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, wrong_id: int, distance: float
) -> None:
    """FAISS 1.14 on a GPU gives id 0 or another one; sums at that row would leave the array."""

    class Hides(TorchSearch):
        def __call__(
            self, x_MD: torch.Tensor, squares_M: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            squared_M, ids_M = super().__call__(x_MD, squares_M)
            wrong_M = ~squares_M.isfinite()
            squared_M = torch.where(wrong_M, distance, squared_M)
            return squared_M, torch.where(wrong_M, wrong_id, ids_M)

    def make(_: Engine, centroids_KD: torch.Tensor, metric: Metric) -> Hides:
        return Hides(centroids_KD)

    x_MD = frames(6)
    start_KD = as_floats(x_MD[:5])
    x_MD[700, 3] = np.nan
    for module in (device_step, device_search):
        monkeypatch.setattr(module, "make_search", make)
    with pytest.raises(NotFiniteError, match="row 700"):
        step_on("faiss").over([Request("all", "euclidean", start_KD)], [held("a", {"all": x_MD})])


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_labels_of_the_torch_engine_are_those_of_faiss(metric: Metric) -> None:
    x_MD = frames(8, count=9000)
    centroids_KD = as_floats(x_MD[:40])
    x_MD[8500, 0] = np.nan
    expected = nearest_ids(FaissAssigner(centroids_KD, metric), x_MD)
    found = nearest_ids(make_assigner(centroids_KD, metric, 0, "torch"), x_MD)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected)
    assert found[8500] == -1


def test_two_tf32_numbers_are_a_centroid_nearly() -> None:
    rng = np.random.default_rng(0)
    c_KD = torch.from_numpy((rng.normal(size=(50, 96)) * 3).astype(np.float32))
    first_KD, rest_KD = tf32_halves(c_KD)
    for part_KD in (first_KD, rest_KD):
        assert (part_KD.view(torch.int32) & 0x1FFF).eq(0).all()
    missing = (c_KD.double() - first_KD.double() - rest_KD.double()).abs()
    assert (missing <= c_KD.double().abs() * 2.0**-20).all()
    # fp16 has as many significant bits as TF32, so that frames are not rounded.
    x_MD = torch.from_numpy(rng.normal(size=(4000, 96)).astype(np.float16)).float()
    assert (x_MD.view(torch.int32) & 0x1FFF).eq(0).all()
    squares_M = x_MD.square().sum(dim=1)
    split, whole = (TorchSearch(c_KD, split=s)(x_MD, squares_M) for s in (True, False))
    assert (split[1] == whole[1]).float().mean() >= 0.9995
    np.testing.assert_allclose(split[0].numpy(), whole[0].numpy(), rtol=1e-4)


def test_the_first_of_equal_centroids_is_taken() -> None:
    c_KD = torch.tensor([[5.0], [1.0], [1.0], [-1.0]])
    x_MD = torch.tensor([[1.0], [0.0], [9.0]])
    squared_M, ids_M = TorchSearch(c_KD)(x_MD, x_MD[:, 0].square())
    assert ids_M.tolist() == [1, 1, 0]
    assert squared_M.tolist() == [0.0, 1.0, 16.0]


@pytest.mark.parametrize(
    ("choice", "gpus", "visible", "engine", "words"),
    [
        ("auto", 0, 0, "faiss", "FAISS on the CPU (auto: FAISS without GPUs)"),
        ("auto", 1, 1, "faiss", "FAISS on 1 GPUs a process (auto: this FAISS sees the GPUs)"),
        ("auto", 2, 0, "torch", "PyTorch on 2 GPUs a process (auto: this FAISS sees no GPU)"),
        ("torch", 0, 0, "torch", 'PyTorch on the CPU (runtime.cluster.engine = "torch")'),
        ("faiss", 1, 0, "faiss", 'FAISS on 1 GPUs a process (runtime.cluster.engine = "faiss")'),
    ],
)
def test_what_auto_picks(
    monkeypatch: pytest.MonkeyPatch,
    choice: EngineChoice,
    gpus: int,
    visible: int,
    engine: Engine,
    words: str,
) -> None:
    monkeypatch.setattr("gmp_atl_dist.clustering.engines.faiss_gpus", lambda: visible)
    assert chosen_engine(choice, gpus) == engine
    assert describe_engine(choice, engine, gpus) == f"nearest centroids by {words}"


def test_frames_take_a_share_of_a_gpu_and_leave_a_tenth_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, answer in (
        ("mem_get_info", (60, 100)),
        ("memory_reserved", 30),
        ("memory_allocated", 20),
    ):
        monkeypatch.setattr(torch.cuda, name, lambda _, answer=answer: answer)
    gpu = torch.device("cuda", 0)
    assert free_bytes(gpu) == 70 - 10, "what is free, and what PyTorch holds and does not use"
    assert free_bytes(gpu, share=0.5) == 50 - 20 - 5
    assert free_bytes(CPU) == 0


@pytest.mark.parametrize(("gpus", "share"), [(0.25, 0.25), (1, 1.0), (2, 1.0)])
def test_several_gpus_are_used_whole_and_a_fraction_in_its_part(
    gpus: float, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[float] = []

    def noted(device: torch.device, share: float) -> int:
        shares.append(share)
        return 0

    monkeypatch.setattr(device_step, "free_bytes", noted)
    monkeypatch.setattr(device_step, "engine_devices", lambda _, count: [CPU] * count)
    step = device_step.device_step("torch", gpus)
    assert len(step.copiers) == math.ceil(gpus)
    step._frames.room(CPU)
    assert shares == [share]


def test_missing_gpus_are_told_with_what_to_do() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ModelError, match=r"PyTorch sees 0 GPUs, 2 are asked for.*gpus to 0"):
        make_step("auto", gpus=2)
    with pytest.raises(ModelError, match=r"PyTorch sees 0 GPUs, 1 are asked for"):
        make_assigner(np.zeros((3, 2), np.float32), gpus=1)
