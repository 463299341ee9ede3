"""GPUs: whether PyTorch, FAISS and the driver of this machine fit each other and what ``gpus`` asks for.

In a job this is the driver's node, which may have no GPU. A driver's or a card's absence is then no problem
of the workers, so what only tells about this node is a warning.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from importlib.metadata import PackageNotFoundError, version

from gmp_atl_dist.config import RuntimeConfig
from gmp_atl_dist.doctor.findings import Finding, fatal, warning
from gmp_atl_dist.gpu_state import Gpu, TorchBuild, list_gpus, torch_build

_CHECK = "gpu"
_SECTIONS = ("extract", "cluster", "label", "train")
_BY_FAISS = ("cluster", "label")
_FAISS_GPU = ("faiss-gpu", "faiss-gpu-cu12", "faiss-gpu-cu11")
_FAISS_CPU = "faiss-cpu"
_LEAST_FAISS = (1, 15)
_LEAST_DRIVER = {11: 450, 12: 525, 13: 580}
"""By the major version of CUDA, for all of its minor versions:
https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html"""
_FULL_SHARE = 0.5
_BF16 = (8, 0)
_INSTALL = "see docs/install.md for the two installs, CUDA 12 and CUDA 13"


def check_gpus(
    config: RuntimeConfig, unused: Collection[str] = (), gpus: tuple[Gpu, ...] | None = None
) -> Iterator[Finding]:
    """What does not fit among ``gpus`` of the sections, PyTorch, FAISS and the driver.

    Args:
        config: its sections are read.
        unused: sections whose stages are not run.
        gpus: of this machine; asked from the driver unless given.
    """
    asked = {name: getattr(config, name).gpus for name in _SECTIONS if name not in unused}
    asked = {name: number for name, number in asked.items() if number}
    build = torch_build()
    found = list_gpus() if gpus is None else gpus
    if not asked:
        yield from _idle(found)
        return
    keys = ", ".join(f"runtime.{name}.gpus = {number:g}" for name, number in asked.items())
    if build is None:
        yield fatal(_CHECK, keys, "PyTorch is not installed", _INSTALL)
        return
    yield from _torch(keys, build, found)
    yield from _faiss(build, asked)
    yield from _cards(found)


def _idle(found: tuple[Gpu, ...]) -> Iterator[Finding]:
    if found:
        value = f"{len(found)} x {found[0].name}, and no section of [runtime] has gpus"
        yield Finding(_CHECK, "this machine", f"{value}: everything computes on CPUs")


def _torch(keys: str, build: TorchBuild, found: tuple[Gpu, ...]) -> Iterator[Finding]:
    if build.toolkit is None:
        # FAISS on GPUs needs it too: it searches tensors of PyTorch.
        yield fatal(_CHECK, keys, str(build), f"install a PyTorch for CUDA: {_INSTALL}")
        return
    if not found:
        yield warning(
            _CHECK,
            keys,
            f"{build}; the driver of this machine lists no GPU",
            "on a head without GPUs that is right; on a worker install NVIDIA's driver, or give the "
            "container its GPUs",
        )
        return
    least = _LEAST_DRIVER.get(int(build.toolkit.split(".")[0]))
    driver = found[0].driver
    if least is not None and int(driver.split(".")[0]) < least:
        yield fatal(
            _CHECK,
            keys,
            f"{build}, and the driver is {driver}: CUDA {build.toolkit.split('.')[0]} needs {least} or newer",
            f"update the driver, or install for the older CUDA: {_INSTALL}",
        )
        return
    yield Finding(_CHECK, keys, f"{build}, driver {driver}")


def _faiss(build: TorchBuild, asked: Collection[str]) -> Iterator[Finding]:
    installed = {name: v for name in (*_FAISS_GPU, _FAISS_CPU) if (v := _version(name))}
    gpu_builds = [name for name in installed if name != _FAISS_CPU]
    item = ", ".join(f"{name} {number}" for name, number in installed.items()) or "faiss"
    if len(installed) > 1:
        # All write the same folder, and the one that was installed last is loaded.
        remedy = f"keep one: pip uninstall {' '.join(installed)}, then install one again"
        yield fatal(_CHECK, item, "several builds of FAISS are installed over each other", remedy)
        return
    by_faiss = ", ".join(f"runtime.{name}.gpus" for name in asked if name in _BY_FAISS)
    if not by_faiss or not gpu_builds:
        return
    (name,) = gpu_builds
    if _numbers(installed[name]) < _LEAST_FAISS:
        yield fatal(
            _CHECK,
            item,
            f"before 1.15, FAISS on a GPU gives cluster 0 for frames that are not finite ({by_faiss})",
            f"pip uninstall {name} and install the extra gpu (faiss-gpu >= 1.15)",
        )
    elif build.toolkit is not None and not build.toolkit.startswith("12."):
        yield warning(
            _CHECK,
            item,
            f"is linked with CUDA 12, and PyTorch with CUDA {build.toolkit}: two runtimes in a process",
            f"install PyTorch for CUDA 12 ({_INSTALL}), or FAISS for CPUs (extra gpu13)",
        )
    else:
        yield Finding(_CHECK, item, f"fits PyTorch for CUDA {build.toolkit}")


def _cards(found: tuple[Gpu, ...]) -> Iterator[Finding]:
    for gpu in found:
        item = f"GPU {gpu.index}, {gpu.name}"
        free = f"{gpu.free_bytes / 2**30:.1f} of {gpu.total_bytes / 2**30:.1f} GiB free"
        if gpu.free_bytes < _FULL_SHARE * gpu.total_bytes:
            remedy = "end other work on it; batches are fitted to the memory that is free"
            yield warning(_CHECK, item, free, remedy)
        elif gpu.compute_capability < _BF16:
            remedy = "it computes in fp32, several times slower than bf16; nothing has to be done"
            yield warning(_CHECK, item, f"{free}; it has no bf16", remedy)
        else:
            yield Finding(_CHECK, item, free)


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])
