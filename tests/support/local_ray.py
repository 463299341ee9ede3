"""A Ray of this machine for the tests of a module, started as cheaply as Ray starts.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

TESTS = Path(__file__).resolve().parents[1]


@contextmanager
def environment_of_workers(*folders: Path) -> Iterator[pytest.MonkeyPatch]:
    """What Ray's processes inherit: a path to the package, to ``tests`` and to these folders.

    The variable and not a ``runtime_env`` of Ray's, for which each process would be started anew
    while those that Ray has started in advance are left unused.
    """
    paths = [*folders, TESTS, TESTS.parent, os.environ.get("PYTHONPATH", "")]
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("PYTHONPATH", os.pathsep.join(str(path) for path in paths if path))
        yield patch


@contextmanager
def local_ray(*folders: Path, **settings: object) -> Iterator[None]:
    """A Ray without a dashboard in a folder of its own; ``settings`` are those of ``ray.init``."""
    import ray

    # A short path, because unix sockets below it may have some 100 characters.
    folder = tempfile.mkdtemp(prefix="gmp-", dir="/tmp")
    with environment_of_workers(*folders) as patch:
        if gpus := settings.get("num_gpus"):
            # Ray counts no more logical GPUs than are visible, and the session sees none.
            patch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(int(str(gpus))))))
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=folder,
            **settings,  # pyright: ignore[reportArgumentType]
        )
        try:
            yield
        finally:
            ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def local_nodes(count: int = 0, **settings: object) -> Iterator[Cluster]:
    """A head without cores and ``count`` nodes, raylets of this machine; this process is its driver.

    ``settings`` are those of each node. A node that is removed is noticed after a second and a half.
    """
    import ray
    from ray.cluster_utils import Cluster

    settings_of_all = {"health_check_failure_threshold": 3, "health_check_period_ms": 500}
    # Else each node starts a process per core for the first driver, whether it needs them or not.
    settings_of_all["prestart_worker_first_driver"] = False
    with environment_of_workers():
        cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "_system_config": settings_of_all,
                "include_dashboard": False,
            },
        )
        try:
            for _ in range(count):
                cluster.add_node(wait=False, **settings)
            cluster.wait_for_nodes()
            ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()
