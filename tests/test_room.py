"""Work that no node can ever start ends in an error that names the demand, instead of waiting for ever."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import pytest

from gmp_atl_dist.config import WorkersConfig
from gmp_atl_dist.errors import WorkerError
from gmp_atl_dist.runtime import room
from gmp_atl_dist.runtime.room import await_room, demand_of

CPUS = {"CPU": 8.0}
GPUS = {"CPU": 8.0, "GPU": 1.0, "gang": 1.0}
Nodes = Sequence[Mapping[str, float]]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> list[Nodes | None]:
    """What the cluster consists of, in turn at each question; the last answer stays."""
    answers: list[Nodes | None] = []
    monkeypatch.setattr(room, "_POLL_S", 0.01)
    monkeypatch.setattr(room, "_autoscaled", lambda: False)
    monkeypatch.setattr(
        room, "cluster_nodes", lambda: answers.pop(0) if len(answers) > 1 else answers[0]
    )
    return answers


def test_a_cluster_without_a_gpu_is_named_with_the_demand(cluster: list[Nodes | None]) -> None:
    cluster.append([CPUS, CPUS])
    with pytest.raises(WorkerError) as e:
        await_room(demand_of(WorkersConfig(cpus=2, gpus=1)), "label fold1", wait_s=0)
    assert e.value.exit_code == 7
    assert e.value.message == (
        "label fold1: a worker asks for 2 cores, 1 GPUs, and no node of the cluster offers that: 2 x "
        "(8 cores, 0 GPUs); set gpus = 0 in its section of [runtime], or add such nodes"
    )


def test_a_node_that_joins_is_waited_for(
    cluster: list[Nodes | None], caplog: pytest.LogCaptureFixture
) -> None:
    cluster += [[CPUS], [CPUS], [CPUS, GPUS]]
    with caplog.at_level("WARNING"):
        await_room({"GPU": 0.5, "gang": 0.001}, "extract", wait_s=60)
    assert [r.getMessage() for r in caplog.records] == [
        "extract: no nodes offer 0.5 GPUs, 0.001 gang; waiting up to 60 s for them"
    ]


def test_the_wait_is_bounded(cluster: list[Nodes | None]) -> None:
    cluster.append([CPUS])
    began_s = time.monotonic()
    with pytest.raises(WorkerError, match="ask for less"):
        await_room({"CPU": 64.0}, "label", wait_s=0.2)
    assert 0.2 <= time.monotonic() - began_s < 10


def test_a_ray_of_this_run_gets_no_more_nodes(cluster: list[Nodes | None]) -> None:
    cluster.append([CPUS])
    room.wait_for_nodes(0.0)
    try:
        with pytest.raises(WorkerError):
            await_room({"GPU": 1.0}, "extract")
    finally:
        room.wait_for_nodes(1800.0)


def test_what_is_not_known_is_left_to_ray(cluster: list[Nodes | None]) -> None:
    cluster.append(None)  # Ray Client
    await_room({"GPU": 1.0}, "extract", wait_s=0)


def test_a_gang_that_does_not_fit_as_a_whole_is_named(cluster: list[Nodes | None]) -> None:
    cluster.append([CPUS, GPUS])
    demand = {"CPU": 3.0, "gang": 0.001}
    await_room(demand, "retrain fold1", count=2, wait_s=0)
    with pytest.raises(WorkerError) as e:
        await_room(demand, "retrain fold1", count=3, wait_s=0.05)
    assert e.value.exit_code == 7
    assert e.value.message.startswith(
        "retrain fold1: 3 workers of 3 cores, 0.001 gang must run together, and the nodes of the cluster "
        "have room for 2 after 0.05 s (runtime.wait_for_nodes_s): 1 x (8 cores, 0 GPUs); "
    )


def test_an_autoscaler_is_asked_once_for_all_stages_that_wait(
    cluster: list[Nodes | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[list[dict[str, float]]] = []

    def asked(bundles: list[dict[str, float]]) -> None:
        requests.append(bundles)

    monkeypatch.setattr(room, "_autoscaled", lambda: True)
    monkeypatch.setattr("ray.autoscaler.sdk.request_resources", asked)
    cluster += [[CPUS], [CPUS], [CPUS, GPUS, GPUS]]
    await_room({"GPU": 1.0, "CPU": 0.0}, "retrain", count=2, wait_s=60)
    assert requests == [[{"GPU": 1.0}, {"GPU": 1.0}], []], "the request ends with the wait"

    cluster[:] = [[CPUS]]
    with pytest.raises(WorkerError, match=r"runtime\.wait_for_nodes_s"):
        await_room({"GPU": 1.0}, "extract", wait_s=0.05)
    assert requests[2:] == [[{"GPU": 1.0}], []]
