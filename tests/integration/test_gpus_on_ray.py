"""What processes see of a node's GPUs, by real actors of a Ray that counts two logical ones.

The processes pretend one thing: that torch finds a GPU where CUDA_VISIBLE_DEVICES leaves one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from support.local_ray import local_ray

from gmp_atl_dist.config import StreamWorkersConfig, TrainWorkersConfig, WorkersConfig
from gmp_atl_dist.errors import WorkerError
from gmp_atl_dist.runtime import Gang, Task, map_tasks, open_pool, room, stream_tasks, train
from gmp_atl_dist.store.filesystem import Store

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
HIDDEN = {"visible": "", "device": "cpu", "backend": "gloo"}


def seen() -> dict[str, str]:
    """What this process sees, and what it would compute on."""
    import torch

    from gmp_atl_dist import device

    torch.cuda.is_available = lambda: bool(os.environ.get("CUDA_VISIBLE_DEVICES", "0"))
    device._found.cache_clear()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "unset")
    backend = device.collective_backend()
    return {"visible": visible, "device": device.accelerator(), "backend": backend}


class Sees:
    """A worker of each kind."""

    def __init__(self, _: object = None) -> None:
        self._seen = json.dumps([seen()])

    def __call__(self, task: Task, request: object = None) -> str:
        return self._seen

    def compute(self, task: Task, table: pa.Table) -> Callable[[], str]:
        said = json.dumps([*json.loads(self._seen), table.to_pylist()[0]])
        return lambda: said


class Reads:
    def __call__(self, task: Task) -> pa.Table:
        return pa.Table.from_pylist([seen()])


def note(folder: str, gang: Gang) -> None:
    """The loop of a gang: an all-reduce on what the process computes on, then a note."""
    import torch
    import torch.distributed as dist

    from gmp_atl_dist.device import torch_device

    said = seen()
    total = torch.ones(1, device=torch_device())
    dist.all_reduce(total)
    Path(folder, str(gang.rank)).write_text(json.dumps(said | {"total": total.item()}))


@pytest.fixture(scope="module", autouse=True)
def two_gpus() -> Iterator[None]:
    with local_ray(HERE, num_cpus=3, num_gpus=2):
        yield


def mapped(gpus: float) -> dict[str, str]:
    workers = WorkersConfig(gpus=gpus)
    (result,) = map_tasks([Task("t")], Sees, None, workers=workers, retries=0)
    (said,) = json.loads(result.result)
    return said


def test_mapped_tasks_without_gpus_see_none() -> None:
    assert mapped(0) == HIDDEN


def test_mapped_tasks_with_a_gpu_see_theirs() -> None:
    said = mapped(1)
    assert said["visible"] in ("0", "1")
    assert said["device"] == "cuda"


def test_streams_and_their_readers() -> None:
    def streamed(gpus: float) -> list[dict[str, str]]:
        workers = StreamWorkersConfig(gpus=gpus, readers=1)
        (result,) = stream_tasks([Task("t")], Reads, Sees, None, workers=workers, retries=0)
        return json.loads(result.result)

    assert streamed(0) == [HIDDEN, HIDDEN]
    computing, reading = streamed(0.5)
    assert computing["device"] == "cuda"
    assert reading == HIDDEN


def test_a_pool_without_gpus_sees_none() -> None:
    pool = partial(open_pool, Sees, None, most=1, retries=0, stalled_after_s=120)
    with pool(workers=WorkersConfig()) as opened:
        (said,) = opened.ask([Task("t")], None)
    assert json.loads(said) == [HIDDEN]


@pytest.mark.nightly
def test_a_gang_without_gpus_is_one_of_gloo_on_cpus(tmp_path: Path) -> None:
    """Else rank 1 of such a gang takes a second GPU, which may not be there."""
    store = Store.open(str(tmp_path / "root"))
    workers = TrainWorkersConfig(workers=2, max_failures=0)
    train(note, str(tmp_path), name="gang", store=store, config=workers)
    for rank in "01":
        assert json.loads((tmp_path / rank).read_text()) == HIDDEN | {"total": 2.0}


CONNECTED = """
import os, sys
import ray
from gmp_atl_dist.config import RuntimeConfig
from gmp_atl_dist.runtime import RayConnection

def visible():
    return os.environ.get("CUDA_VISIBLE_DEVICES", "unset")

with RayConnection(RuntimeConfig(ray_address=sys.argv[1])) as connection:
    connection.open()
    asked = [ray.remote(num_gpus=n)(visible).remote() for n in (0, 1)]
    print("visible:", *map(repr, ray.get(asked)))
"""


def test_a_connection_has_ray_hide_gpus_from_processes_of_any_library() -> None:
    """GPUs are hidden before the first import, also in processes of Ray Train itself."""
    import ray

    address = ray.get_runtime_context().gcs_address
    done = subprocess.run(
        [sys.executable, "-c", CONNECTED, address], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(("visible: '' '0'", "visible: '' '1'"))


def test_more_gpus_than_any_node_has_end_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_wait_s", 0.5)
    with pytest.raises(WorkerError) as e:
        mapped(3)
    assert "asks for 1 cores, 3 GPUs" in e.value.message
    assert "3 cores, 2 GPUs" in e.value.message
    assert e.value.exit_code == 7


def test_what_an_autoscaler_is_asked_for_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """By Ray's own request; there is no autoscaler here to answer it."""
    from ray._private.ray_constants import AUTOSCALER_RESOURCE_REQUEST_CHANNEL
    from ray.experimental.internal_kv import _internal_kv_get

    monkeypatch.setattr(room, "_autoscaled", lambda: True)
    monkeypatch.setattr(room, "_POLL_S", 0.1)
    asked: list[bytes | None] = []

    def nodes() -> list[dict[str, float]]:
        asked.append(_internal_kv_get(AUTOSCALER_RESOURCE_REQUEST_CHANNEL))
        return [{"CPU": 3.0, "GPU": 2.0}]

    monkeypatch.setattr(room, "cluster_nodes", nodes)
    with pytest.raises(WorkerError, match="2 workers of 2 cores, 1 GPUs must run together"):
        room.await_room({"CPU": 2.0, "GPU": 1.0}, "retrain", count=2, wait_s=0.5)
    assert json.loads(asked[-1] or b"") == 2 * [{"CPU": 2.0, "GPU": 1.0}]
    assert _internal_kv_get(AUTOSCALER_RESOURCE_REQUEST_CHANNEL) == b"[]"
