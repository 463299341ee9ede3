"""What is asked of the machine, and threads that stay within it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import faiss
import pytest
import torch

from gmp_atl_dist import device


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
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(device, "_chosen", [])  # a test before this one may have chosen
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
