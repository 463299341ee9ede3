"""Stages on a Ray whose nodes its own autoscaler starts and removes (version 2, which KubeRay uses).

The head has no cores. The nodes are raylets of this machine, by Ray's provider for such tests. With version 1
of the autoscaler, that provider does not work any more in Ray 2.60.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import ray
from support.local_ray import environment_of_workers
from support.s3_server import free_ports

from gmp_atl_dist.config import WorkersConfig
from gmp_atl_dist.errors import WorkerError
from gmp_atl_dist.ray_api.facts import ClusterFacts, ask_cluster
from gmp_atl_dist.runtime import Task, map_tasks, room
from gmp_atl_dist.runtime.nodes import cluster_nodes

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(900)]

HEAD_NODE = "f" * 51 + "00000"
NODE = {"CPU": 1, "object_store_memory": 80 << 20}
GROUPS = {"extractors": {**NODE, "extractor": 1}, "trainers": {**NODE, "trainer": 1}}
MOST = 2
IDLE_S = 6.0
WAIT_S = 120.0


@dataclass(frozen=True)
class Autoscaled:
    address: str

    def nodes_with(self, resource: str) -> int:
        return sum(resource in node for node in cluster_nodes() or [])


def config(port: int) -> dict[str, object]:
    """A cluster's file of Ray's autoscaler."""
    groups: dict[str, object] = {
        name: {"resources": resources, "node_config": {}, "min_workers": 0, "max_workers": MOST}
        for name, resources in GROUPS.items()
    }
    head = {"resources": {}, "node_config": {}, "min_workers": 0, "max_workers": 0}
    return {
        "cluster_name": "autoscaled",
        "max_workers": MOST * len(GROUPS),
        "idle_timeout_minutes": IDLE_S / 60,
        "upscaling_speed": 100,
        "provider": {
            # By the name of its class, because the wheel lacks the defaults of the type "fake_multinode".
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": f"127.0.0.1:{port}",
            "head_node_id": HEAD_NODE,
            "launch_multiple": True,
        },
        "auth": {},
        "docker": {},
        "available_node_types": {"ray.head.default": head, **groups},
        "head_node_type": "ray.head.default",
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
    }


@contextmanager
def head(folder: Path) -> Iterator[Autoscaled]:
    port, agent, agent_grpc, runtime_env, metrics = free_ports(5)
    (folder / "cluster.json").write_text(json.dumps(config(port)))
    env = {
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_AUTH_MODE": "disabled",
    }
    env |= {"RAY_enable_autoscaler_v2": "1", "RAY_CLOUD_INSTANCE_ID": HEAD_NODE}
    env["RAY_OVERRIDE_NODE_ID_FOR_TESTING"] = HEAD_NODE
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *("--node-ip-address=127.0.0.1", f"--port={port}", "--num-cpus=0"),
        *(f"--temp-dir={folder}", f"--autoscaling-config={folder / 'cluster.json'}"),
        *(
            "--include-dashboard=false",
            "--disable-usage-stats",
            f"--object-store-memory={100 << 20}",
        ),
        *(f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={agent_grpc}"),
        *(f"--runtime-env-agent-port={runtime_env}", f"--metrics-export-port={metrics}"),
    ]
    log = folder / "head.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            env=os.environ | env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until_s = time.monotonic() + WAIT_S
        while "block forever" not in log.read_text():
            if process.poll() is not None or time.monotonic() > until_s:
                pytest.fail(f"no head; its output:\n{log.read_text()[-3000:]}")
            time.sleep(0.2)
        yield Autoscaled(f"127.0.0.1:{port}")
    finally:
        # The autoscaler's nodes are processes of this tree, some in groups of their own.
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.kill()
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Autoscaled]:
    with (
        # pytest's own folders are too long for the sockets of Ray.
        tempfile.TemporaryDirectory(
            prefix="gas-", dir="/tmp", ignore_cleanup_errors=True
        ) as folder,
        environment_of_workers(Path(__file__).parent),
        head(Path(folder)) as made,
    ):
        ray.init(address=made.address, logging_level=logging.ERROR, log_to_driver=False)
        try:
            yield made
        finally:
            ray.shutdown()


class Doubles:
    def __init__(self, _: str) -> None:
        pass

    def __call__(self, task: Task) -> str:
        return json.dumps([2 * int(task.payload)])


def until_no_node_with(cluster: Autoscaled, resource: str) -> None:
    until_s = time.monotonic() + WAIT_S
    while cluster.nodes_with(resource):
        assert time.monotonic() < until_s, f"a node with {resource} stays though nothing uses it"
        time.sleep(0.5)


def test_doctor_sees_that_there_is_an_autoscaler(cluster: Autoscaled) -> None:
    """Not its groups: only a cluster service tells Ray their limits."""
    facts = ask_cluster(cluster.address, 60.0)
    assert isinstance(facts, ClusterFacts)
    assert facts.autoscaled
    assert facts.groups == ()


def test_a_stage_gets_its_nodes_and_they_go_when_it_is_done(
    cluster: Autoscaled, caplog: pytest.LogCaptureFixture
) -> None:
    assert not cluster.nodes_with("extractor")
    room.wait_for_nodes(WAIT_S)
    tasks = [Task(f"part{i}", str(i)) for i in range(6)]
    workers = WorkersConfig(workers=(1, 2), cpus=1, resources={"extractor": 1.0})
    results = {
        result.name: json.loads(result.result)
        for result in map_tasks(tasks, Doubles, "", workers=workers, retries=0)
    }
    assert results == {f"part{i}": [2 * i] for i in range(6)}
    assert "the autoscaler is asked for them" in caplog.text
    assert 1 <= cluster.nodes_with("extractor") <= MOST
    assert not cluster.nodes_with("trainer")
    until_no_node_with(cluster, "extractor")


def test_a_gang_gets_all_its_nodes_at_once(cluster: Autoscaled) -> None:
    room.await_room({"CPU": 1.0, "trainer": 1.0}, "retrain", count=MOST, wait_s=WAIT_S)
    assert cluster.nodes_with("trainer") == MOST
    until_no_node_with(cluster, "trainer")


def test_what_no_group_has_ends_in_an_error(cluster: Autoscaled) -> None:
    began_s = time.monotonic()
    with pytest.raises(WorkerError, match=r"extract: a worker asks for 1 cores, 1 misspelt") as e:
        room.await_room({"CPU": 1.0, "misspelt": 1.0}, "extract", wait_s=5.0)
    assert e.value.exit_code == 7
    assert time.monotonic() - began_s < WAIT_S
    assert not cluster.nodes_with("misspelt")
