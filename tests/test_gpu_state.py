"""A full GPU gives one message for every library. Builds and drivers are read without torch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gmp_atl_dist.errors import WorkerError
from gmp_atl_dist.gpu_state import (
    full_memory_message,
    is_out_of_memory,
    list_gpus,
    torch_build,
)
from gmp_atl_dist.runtime.worker_processes import _attempt

GIB = 1 << 30
FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be ..."),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("Error: 'err == cudaSuccess' failed: Failed to cudaMalloc 1 bytes (error 2)"),
]


@pytest.fixture
def shared_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """GPU 3 of 80 GiB, 1 free: this process holds 9, somebody else 70."""
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1 * GIB, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 9 * GIB)


@pytest.mark.parametrize("error", FULL)
@pytest.mark.usefixtures("shared_gpu")
def test_a_worker_names_the_gpu_and_its_memory(error: RuntimeError) -> None:
    def work() -> None:
        raise error

    found = _attempt("part-00003", work)

    assert isinstance(found, WorkerError)
    assert found.message.startswith("part-00003: no memory is left on GPU 3: ")
    assert "1.0 GiB free of 80.0 GiB, 9.0 GiB held by this process" in found.message
    assert "70.0 GiB held by other processes" in found.message
    assert "Traceback" not in found.message
    assert len(found.message.splitlines()) == 1


def test_other_errors_keep_their_traceback() -> None:
    def work() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    assert not is_out_of_memory(RuntimeError("disk is full"))
    found = _attempt("part-00003", work)
    assert isinstance(found, WorkerError)
    assert "Traceback" in found.message


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ``nvidia-smi`` that lists a free GPU, a full one, and a line that nobody understands."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\ncase $1 in *compute_cap) ;; *) exit 2 ;; esac\n"
        "echo '0, NVIDIA H100 80GB HBM3, 580.95.05, 81000, 81559, 9.0'\n"
        "echo '1, Tesla T4, 580.95.05, 12, 15360, 7.5'\n"
        "echo '2, Strange, 580.95.05, [N/A], [N/A], 1.0'\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tool


@pytest.mark.usefixtures("driver")
def test_gpus_as_the_driver_lists_them() -> None:
    first, second = list_gpus()
    assert (first.index, first.name, first.driver) == (0, "NVIDIA H100 80GB HBM3", "580.95.05")
    assert first.compute_capability == (9, 0)
    assert (second.free_bytes, second.total_bytes) == (12 << 20, 15360 << 20)


@pytest.mark.usefixtures("driver")
def test_a_gpu_too_full_for_a_context_is_asked_by_its_driver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_context() -> int:
        raise torch.AcceleratorError("CUDA error: out of memory")

    monkeypatch.setattr(torch.cuda, "current_device", no_context)
    told = full_memory_message("start of a worker", FULL[2])
    assert "GPU 1: 0.0 GiB free of 15.0 GiB" in told


def test_a_machine_without_a_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list_gpus() == ()


def test_the_build_of_torch_is_read_from_its_file() -> None:
    build = torch_build()
    assert build is not None
    assert (build.version, build.toolkit) == (torch.__version__, torch.version.cuda)
