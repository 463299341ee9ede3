"""What is asked of the machine, and threads that stay within it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace

import faiss
import pytest
import torch

from gmp_atl_dist import device
from gmp_atl_dist.errors import ModelError


@pytest.fixture
def pinned_back() -> Iterator[None]:
    threads, faiss_threads, before = (
        torch.get_num_threads(),
        faiss.omp_get_max_threads(),
        dict(os.environ),
    )
    yield
    os.environ.clear()
    os.environ.update(before)
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(faiss_threads)


@pytest.fixture(params=["cpu", "cuda"])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param == "cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    # What a test before this one chose, and the session's choice of the CPU.
    monkeypatch.setattr(device, "_chosen", [])
    monkeypatch.setattr(device, "_granted", [])
    device._found.cache_clear()
    yield request.param
    device._found.cache_clear()


def test_everything_follows_from_the_accelerator(machine: str) -> None:
    assert device.accelerator() == machine
    assert device.torch_device() == torch.device(machine)
    assert device.collective_backend() == {"cpu": "gloo", "cuda": "nccl"}[machine]
    assert device.use_bf16() == (machine == "cuda")


def test_a_cpu_computes_in_fp32() -> None:
    device._found.cache_clear()
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    with device.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


@pytest.mark.usefixtures("pinned_back")
def test_threads_are_pinned_everywhere() -> None:
    device.pin_threads(2)
    device.pin_faiss_threads()
    assert torch.get_num_threads() == 2
    assert faiss.omp_get_max_threads() == 2
    assert {os.environ[f"{name}_NUM_THREADS"] for name in ("OMP", "MKL", "OPENBLAS")} == {"2"}


@pytest.mark.usefixtures("pinned_back")
def test_faiss_takes_one_thread_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    device.pin_faiss_threads()
    assert faiss.omp_get_max_threads() == 1


# --- what a process computes on follows from the GPUs that it was given ---


@pytest.fixture
def gpu_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two GPUs, which the driver hides from torch as CUDA_VISIBLE_DEVICES says."""

    def count() -> int:
        return len([x for x in os.environ.get("CUDA_VISIBLE_DEVICES", "0,1").split(",") if x])

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count() > 0)
    monkeypatch.setattr(torch.cuda, "device_count", count)
    monkeypatch.setattr(device, "_chosen", [])
    monkeypatch.setattr(device, "_granted", [])
    device._found.cache_clear()
    yield
    device._found.cache_clear()


@pytest.mark.usefixtures("gpu_machine")
def test_a_process_without_gpus_hides_them_and_computes_on_the_cpu() -> None:
    device.use_gpus(0)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert not torch.cuda.is_available()  # DeepSpeed and Ray Train ask torch themselves
    assert device.accelerator() == "cpu"
    assert device.torch_device() == torch.device("cpu")
    assert device.collective_backend() == "gloo"
    assert device.gpu_count() == 0


@pytest.mark.parametrize("gpus", [0.5, 1])
@pytest.mark.usefixtures("gpu_machine")
def test_a_process_with_a_gpu_computes_on_it(gpus: float) -> None:
    device.use_gpus(gpus)
    assert device.accelerator() == "cuda"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"  # as Ray has set it


@pytest.mark.parametrize("machine", ["cpu"], indirect=True)
@pytest.mark.usefixtures("machine")
def test_a_gpu_that_was_given_and_cannot_be_used_is_an_error() -> None:
    device.use_gpus(1)
    with pytest.raises(ModelError) as e:
        device.accelerator()
    for said in ("given 1 GPUs", f"PyTorch {torch.__version__}, built for", "set gpus = 0"):
        assert said in e.value.message


@pytest.fixture
def card(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of the parameter's compute capability. It emulates bf16, as V100 and T4 do."""
    properties = SimpleNamespace(name="Card", major=request.param[0], minor=request.param[1])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda _: True)
    monkeypatch.setattr(device, "_chosen", ["cuda"])
    device._say_fp32.cache_clear()


@pytest.mark.parametrize(
    ("card", "bf16"), [((7, 0), False), ((7, 5), False), ((8, 0), True)], indirect=["card"]
)
@pytest.mark.usefixtures("card")
def test_emulated_bf16_is_not_used_and_said_once(
    bf16: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING"):
        assert [device.use_bf16() for _ in range(3)] == [bf16] * 3
        with device.autocast():
            assert torch.is_autocast_enabled("cuda") == bf16
    said = [r.getMessage() for r in caplog.records if "fp32" in r.getMessage()]
    assert len(said) == (0 if bf16 else 1)
    assert all(line.startswith("Card computes in fp32") for line in said)
