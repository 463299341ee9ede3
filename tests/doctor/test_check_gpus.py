"""PyTorch, FAISS, the driver and ``gpus`` are compared, on a machine of any kind."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gmp_atl_dist.config import RuntimeConfig
from gmp_atl_dist.doctor import gpus
from gmp_atl_dist.doctor.findings import Finding
from gmp_atl_dist.gpu_state import Gpu, TorchBuild

GIB = 1 << 30
H100 = Gpu(0, "NVIDIA H100", "580.95.05", 79 * GIB, 80 * GIB, (9, 0))
T4 = Gpu(0, "Tesla T4", "535.104.05", 14 * GIB, 15 * GIB, (7, 5))

Check = Callable[..., list[Finding]]


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Check:
    def run(
        cuda: str | None = "12.6",
        found: tuple[Gpu, ...] = (H100,),
        faiss: dict[str, str] | None = None,
        unused: tuple[str, ...] = (),
        **sections: float,
    ) -> list[Finding]:
        installed = {"faiss-gpu": "1.15.1"} if faiss is None else faiss
        monkeypatch.setattr(gpus, "torch_build", lambda: TorchBuild("2.13.0", cuda))
        monkeypatch.setattr(gpus, "_version", installed.get)
        keys = {name: {"gpus": number} for name, number in sections.items()}
        config = RuntimeConfig.model_validate(keys)
        return list(gpus.check_gpus(config, unused, found))

    return run


def only_bad(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity != "ok"]


def test_an_install_that_fits(check: Check) -> None:
    assert only_bad(check(extract=1, cluster=1, train=1)) == []
    assert only_bad(check("13.0", faiss={"faiss-cpu": "1.15.1"}, extract=1, train=1)) == []


def test_gpus_of_a_build_for_cpus(check: Check) -> None:
    """What pip makes of the extra where it sees a wheel for CPUs."""
    (found,) = only_bad(check(None, train=1))
    assert found.severity == "fatal"
    assert found.item == "runtime.train.gpus = 1"
    assert found.value == "PyTorch 2.13.0, built for CPUs only"


@pytest.mark.parametrize(
    ("cuda", "driver", "fits"),
    [("13.0", "535.104.05", False), ("12.6", "535.104.05", True), ("13.0", "580.65", True)],
)
def test_a_driver_too_old_for_the_cuda_of_torch(
    check: Check, cuda: str, driver: str, fits: bool
) -> None:
    card = Gpu(0, "NVIDIA H100", driver, 79 * GIB, 80 * GIB, (9, 0))
    bad = only_bad(check(cuda, (card,), {"faiss-cpu": "1.15.1"}, train=1))
    assert [f.severity for f in bad] == ([] if fits else ["fatal"])
    assert all("needs 580 or newer" in f.value for f in bad)


def test_two_cudas_in_one_process(check: Check) -> None:
    (found,) = only_bad(check("13.0", cluster=1))
    assert found.severity == "warning"
    assert "CUDA 12" in found.value
    assert "CUDA 13.0" in found.value


def test_a_faiss_that_gives_cluster_0_for_broken_frames(check: Check) -> None:
    (found,) = only_bad(check(faiss={"faiss-gpu-cu12": "1.14.1.post1"}, label=1))
    assert found.severity == "fatal"
    assert "runtime.label.gpus" in found.value
    assert only_bad(check(faiss={"faiss-gpu-cu12": "1.14.1.post1"}, train=1)) == []


def test_two_builds_of_faiss(check: Check) -> None:
    (found,) = only_bad(check(faiss={"faiss-gpu": "1.15.1", "faiss-cpu": "1.15.1"}, extract=1))
    assert found.severity == "fatal"
    assert "pip uninstall faiss-gpu faiss-cpu" in found.remedy


def test_cards_without_bf16_and_cards_that_are_full(check: Check) -> None:
    (found,) = only_bad(check(found=(T4,), train=1))
    assert found.severity == "warning"
    assert "no bf16" in found.value
    full = Gpu(2, "NVIDIA H100", "580.1", 3 * GIB, 80 * GIB, (9, 0))
    (found,) = only_bad(check(found=(full,), train=1))
    assert found.item == "GPU 2, NVIDIA H100"
    assert found.value == "3.0 of 80.0 GiB free"


def test_a_head_without_a_gpu_is_warned_only(check: Check) -> None:
    (found,) = only_bad(check(found=(), train=1))
    assert found.severity == "warning"


def test_gpus_that_nobody_asked_for(check: Check) -> None:
    (found,) = check()
    assert found.severity == "ok"
    assert "everything computes on CPUs" in found.value
    assert check(found=()) == []
    assert [f.severity for f in check(None, train=1, unused=("train",))] == ["ok"]
