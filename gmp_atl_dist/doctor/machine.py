"""This machine: libraries, DeepSpeed's built ops, disk and shared memory.

In a job this is the driver's node. The workers' nodes are usually like it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from gmp_atl_dist.config import RuntimeConfig
from gmp_atl_dist.doctor.engine import check_engine
from gmp_atl_dist.doctor.findings import Finding, fatal, warning
from gmp_atl_dist.doctor.gpus import check_gpus
from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.store.clouds import CLOUDS
from gmp_atl_dist.store.filesystem import normalize_uri

_NEEDED = ("torch", "transformers", "faiss")
"""Without one of these no stage after ``ingest`` can run."""
_FREE_BYTES = 5 << 30
_FULL_SHARE = 0.95
"""Ray stores no more objects on a disk that is fuller than this."""
_SHM_BYTES = 1 << 30
_SHM = "/dev/shm"
_OP = "deepspeed_shm_comm"


def check_machine(config: RuntimeConfig, unused: Collection[str] = ()) -> Iterator[Finding]:
    """All checks of this machine. ``unused`` names sections of ``config`` whose stages are not run."""
    yield from check_libraries(config)
    yield from check_gpus(config, unused)
    yield from check_engine(config)
    if not config.train.gpus:
        yield check_ops()
    folders = {Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())}
    # Of a root that cannot be opened, the check of the store says what is wrong.
    with suppress(ArtifactError):
        root = normalize_uri(config.root)
        if root.startswith("file://"):
            folders.add(Path(root.removeprefix("file://")))
    for folder in sorted(folders):
        yield check_disk(folder)
    if Path(_SHM).is_dir():
        yield check_shared_memory(shutil.disk_usage(_SHM).total)


def check_libraries(config: RuntimeConfig) -> Iterator[Finding]:
    """The libraries of the extras, as far as the configuration needs them."""
    for name in _NEEDED:
        if find_spec(name) is None:
            remedy = "install an extra: '.[cpu]', '.[gpu]' or '.[gpu13]'"
            yield fatal("libraries", name, "is not installed", remedy)
        else:
            yield Finding("libraries", name, "is installed")
    yield from _check_clouds(config)
    if config.train.mlflow_uri is not None:
        item = "mlflow, for runtime.train.mlflow_uri"
        if find_spec("mlflow") is None:
            remedy = (
                "install the extra mlflow here and on the workers; otherwise no metrics are sent"
            )
            yield warning("libraries", item, "is not installed", remedy)
        else:
            yield Finding("libraries", item, "is installed")


def _check_clouds(config: RuntimeConfig) -> Iterator[Finding]:
    """The extra that roots and corpora on Google Cloud Storage and Azure Blob need."""
    places = (config.root, config.corpus, *config.corpora.values())
    found = next((place for place in places if place.startswith(CLOUDS)), None)
    if found is None:
        return
    item = f"obstore, for {found}"
    if find_spec("obstore") is None:
        remedy = (
            "install the extra clouds here and on the workers: pip install 'gmp_atl_dist[clouds]'"
        )
        yield fatal("libraries", item, "is not installed", remedy)
    else:
        yield Finding("libraries", item, "is installed")


def check_ops() -> Finding:
    """Whether DeepSpeed's communicator for CPUs is built, or can be built."""
    from gmp_atl_dist.training.ops import use_ops_folder

    folder = use_ops_folder() / _OP
    build = "python -m gmp_atl_dist.training.ops"
    if (folder / "lock").exists():
        value = "is locked: it is being compiled, or a killed process left the lock behind"
        remedy = f"a stale lock would block the run for ever; {build} removes it"
        return warning("deepspeed", str(folder), value, remedy)
    if any(folder.glob("*.so")):
        return Finding("deepspeed", str(folder), "is built")
    compiler = os.environ.get("CXX") or "c++"
    missing = [tool for tool in (compiler, "ninja") if shutil.which(tool) is None]
    if missing:
        value = f"is not built, and {' and '.join(missing)} to build it are missing"
        remedy = "install them, or build the op in the image: " + build
        return warning("deepspeed", str(folder), value, remedy)
    value = "is not built; the first training compiles it, which takes about two minutes"
    return warning("deepspeed", str(folder), value, f"build it once: {build}")


def check_disk(folder: Path) -> Finding:
    """Space for objects that Ray spills and for files below the root."""
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    usage = shutil.disk_usage(existing)
    used = 1 - usage.free / usage.total if usage.total else 1.0
    value = f"{usage.free / 1e9:.1f} GB free, {100 * used:.0f} % used"
    if usage.free < _FREE_BYTES or used > _FULL_SHARE:
        remedy = "free space; above 95 % Ray stores no more objects there, and tasks fail"
        return warning("disk", str(folder), value, remedy)
    return Finding("disk", str(folder), value)


def check_shared_memory(total_bytes: int) -> Finding:
    """Size of ``/dev/shm``, which holds Ray's object store and tensors that torch passes on."""
    value = f"{total_bytes / 1e9:.2f} GB"
    if total_bytes < _SHM_BYTES:
        remedy = (
            "give it 1 GB or more (in a pod an emptyDir with medium Memory; docker --shm-size); "
            "otherwise Ray's objects are on disk"
        )
        return warning("shared memory", _SHM, value, remedy)
    return Finding("shared memory", _SHM, value)
