"""Who finds nearest centroids: the engine that this machine would take for ``runtime.cluster.engine``.

Workers decide for themselves, because their FAISS may see GPUs that the driver's node lacks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib.util import find_spec

from gmp_atl_dist.clustering.engines import chosen_engine, describe_engine
from gmp_atl_dist.config import RuntimeConfig
from gmp_atl_dist.device import faiss_gpus
from gmp_atl_dist.doctor.findings import Finding, warning


def check_engine(config: RuntimeConfig) -> Iterator[Finding]:
    """The engine of k-means and labels here; a warning if it cannot work as it is asked for."""
    if find_spec("faiss") is None:
        # ``check_libraries`` says so: first centroids come from FAISS whatever the engine.
        return
    choice, gpus = config.cluster.engine, config.cluster.gpus
    item = f'runtime.cluster.engine = "{choice}"'
    if choice == "faiss" and gpus and (visible := faiss_gpus()) < math.ceil(gpus):
        yield warning(
            "k-means",
            item,
            f"the FAISS on this machine sees {visible} GPUs, runtime.cluster.gpus = {gpus:g}",
            'install a FAISS for GPUs on the workers, set runtime.cluster.engine = "auto", or set '
            "runtime.cluster.gpus = 0",
        )
        return
    engine = chosen_engine(choice, math.ceil(gpus))
    yield Finding("k-means", item, f"here: {describe_engine(choice, engine, gpus)}")
