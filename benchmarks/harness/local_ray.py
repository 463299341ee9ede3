"""A Ray of its own for a benchmark that sets the number of cores or GPUs which Ray reckons with."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

_VISIBLE = "CUDA_VISIBLE_DEVICES"


@contextmanager
def local_ray(cores: int, gpus: int = 0) -> Iterator[None]:
    """Start a Ray on this machine; never joins another one, and stops its own at the end.

    Args:
        cores: logical ones; more than the machine has are allowed.
        gpus: logical ones; no device needs to be there.
    """
    import ray

    before = os.environ.get(_VISIBLE)
    if gpus:
        # Ray counts no more logical ones than are visible.
        os.environ[_VISIBLE] = ",".join(map(str, range(gpus)))
    try:
        ray.init(
            address="local",
            num_cpus=cores,
            num_gpus=gpus,
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
        yield
    finally:
        ray.shutdown()
        os.environ.pop(_VISIBLE, None)
        if before is not None:
            os.environ[_VISIBLE] = before
