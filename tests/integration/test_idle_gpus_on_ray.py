"""What doctor and a run say of the GPUs of a real Ray that counts eight logical ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.local_ray import local_ray

from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.config.file import load_config
from gmp_atl_dist.doctor.cluster import check_cluster
from gmp_atl_dist.doctor.findings import Finding
from gmp_atl_dist.runs.expected import rate_of
from gmp_atl_dist.runtime import cluster_nodes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    import ray

    named = {"accelerator_type:H100": 1.0}
    with local_ray(num_cpus=40, num_gpus=8, resources=named):
        yield ray.get_runtime_context().gcs_address


def told(config: RunConfig, address: str) -> list[Finding]:
    runtime = config.runtime.model_copy(update={"ray_address": address})
    found = check_cluster(runtime, 30.0, unused=config.unused_workers, whole=config)
    return [f for f in found if f.severity != "ok" and f.check != "store"]


def test_the_shipped_configuration_uses_what_there_is(address: str) -> None:
    assert told(load_config("iemocap"), address) == []


def test_what_would_be_idle_is_named(address: str) -> None:
    as_before = [
        "runtime.train.workers=8",
        "runtime.extract.workers=2",
        "runtime.extract.readers=1",
    ]
    items = [f.item for f in told(load_config("iemocap", as_before), address)]
    assert items == [
        "runtime.extract.workers = 2 at most",
        "runtime.extract.readers = 1",
        "warmup, retrain, finetune: batch_s = 300, runtime.train.workers = 8",
    ]
    on_cores = ["runtime.train.gpus=0", "runtime.extract.gpus=0"]
    items = [f.item for f in told(load_config("iemocap", on_cores), address)]
    assert items == ["runtime.extract.gpus = 0", "runtime.train.gpus = 0"]


def test_the_rate_of_the_gpus_is_known_by_their_name(address: str) -> None:
    rate = rate_of(cluster_nodes())
    assert (rate.flops, rate.said) == (989e12, "H100")
