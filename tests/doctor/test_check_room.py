"""What a configuration asks against what a cluster has, and could have."""

from __future__ import annotations

import pytest

from gmp_atl_dist.config import RunConfig, RuntimeConfig
from gmp_atl_dist.doctor.cluster import Versions, check_room, compare_versions
from gmp_atl_dist.doctor.findings import Finding
from gmp_atl_dist.ray_api.facts import ClusterFacts, Node, NodeGroup
from gmp_atl_dist.scheduling.demands import Demand, room_for


def facts(
    *nodes: tuple[float, float], groups: tuple[NodeGroup, ...] = (), autoscaled: bool = False
) -> ClusterFacts:
    made = tuple(
        Node(name=f"node{i}", cpus=cpus, gpus=gpus) for i, (cpus, gpus) in enumerate(nodes)
    )
    return ClusterFacts(
        ray_version="2.60.0",
        python_version="3.11.7",
        nodes=made,
        groups=groups,
        autoscaled=autoscaled or bool(groups),
    )


def bad(config: dict[str, object], cluster: ClusterFacts) -> list[Finding]:
    settings = RuntimeConfig.model_validate({"ingest": {"workers": 1}, **config})
    return [f for f in check_room(settings, cluster) if f.severity != "ok"]


def group(most: int | None, cpus: float, gpus: float) -> NodeGroup:
    return NodeGroup(name="gpu", most=most, cpus=cpus, gpus=gpus)


@pytest.mark.parametrize(
    ("gpus", "nodes", "room"),
    [
        (0.0, [(4, 0), (3, 0)], 3),
        (1.0, [(16, 2), (1, 8)], 2),
        (0.5, [(16, 2)], 4),
        (0.4, [(16, 1)], 2),  # what is left of a GPU after two is too little for a third
        (0.6, [(16, 2)], 2),  # no worker spans two GPUs
        (2.0, [(16, 3), (16, 3)], 2),
    ],
)
def test_workers_are_packed_as_ray_packs_them(
    gpus: float, nodes: list[tuple[float, float]], room: int
) -> None:
    demand = Demand("x", 1, 1, cpus=2, gpus=gpus)
    assert room_for(demand, facts(*nodes).nodes) == room


def test_what_fits_is_well() -> None:
    assert bad({"extract": {"workers": [1, 64]}, "train": {"workers": 2}}, facts((2, 0))) == []


def test_a_gang_that_never_fits_together_is_fatal() -> None:
    (found,) = bad({"train": {"workers": 3}}, facts((2, 0)))

    assert found.severity == "fatal"
    assert found.item == "runtime.train: 3 x (1 core)"
    assert "room for 2 at the same time" in found.value


def test_tasks_with_fewer_workers_than_asked_still_run() -> None:
    (found,) = bad({"label": {"workers": 3}}, facts((2, 0)))

    assert found.severity == "warning"


def test_a_worker_that_no_node_can_hold_is_fatal_though_all_together_could() -> None:
    (found,) = bad({"label": {"cpus": 8}}, facts((4, 0), (6, 0)))

    assert found.severity == "fatal"
    assert "the largest has 6 cores" in found.value


def test_gpus_where_there_are_none() -> None:
    (found,) = bad({"extract": {"gpus": 1}}, facts((16, 0)))

    assert found.severity == "fatal"
    assert "no node has a GPU" in found.value


def test_a_reader_needs_room_beside_its_worker() -> None:
    (found,) = bad({"extract": {"cpus": 2, "reader_cpus": 1}}, facts((2, 0)))

    assert found.severity == "fatal"
    assert "reader_cpus" in found.item


@pytest.mark.parametrize(
    ("most", "severity"), [(None, "warning"), (4, "warning"), (1, "fatal"), (0, "fatal")]
)
def test_the_autoscaler_may_bring_what_is_missing(most: int | None, severity: str) -> None:
    cluster = facts((1, 0), groups=(group(most, 8, 1),))

    (found,) = bad({"train": {"workers": 2, "gpus": 1}}, cluster)

    assert found.severity == severity


def test_an_autoscaler_that_tells_no_limits_is_waited_for() -> None:
    (found,) = bad({"train": {"gpus": 1}}, facts((1, 0), autoscaled=True))

    assert found.severity == "warning"
    assert "autoscaler" in found.remedy


def test_other_versions_are_named() -> None:
    found = list(compare_versions("head:6379", facts((1, 0)), Versions("2.59.0", "3.11.7")))

    assert [f.value for f in found] == ["Ray 2.60.0 on the cluster, 2.59.0 here"]
    assert found[0].severity == "fatal"


def offering(*names: str, of: type[Node] = Node, **more: object) -> Node:
    return of.model_validate(
        {"name": "x", "cpus": 4, "gpus": 0, "resources": dict.fromkeys(names, 1.0), **more}
    )


def test_a_custom_resource_that_no_node_offers_is_fatal_and_named() -> None:
    asks: dict[str, object] = {
        "ingest": {"workers": 1, "resources": {"extract": 0.001}},
        "extract": {"reader_resources": {"decode": 0.001}},
        "train": {"resources": {"gang": 0.001}},
    }
    cluster = facts().model_copy(update={"nodes": (offering("extract"),)})

    found = bad(asks, cluster)

    assert [(f.severity, f.item.partition(":")[0]) for f in found] == [
        ("fatal", "runtime.train"),
        ("fatal", "runtime.extract.reader_resources"),
    ]
    assert "no node offers gang" in found[0].value
    assert "no node offers decode" in found[1].value
    all_of_them = cluster.model_copy(update={"nodes": (offering("extract", "decode", "gang"),)})
    assert bad(asks, all_of_them) == []


def test_a_custom_resource_that_an_autoscaler_may_add_is_waited_for() -> None:
    asks: dict[str, object] = {"train": {"resources": {"gang": 0.001}}}
    group = offering("gang", of=NodeGroup, most=2)
    cluster = facts((4, 0)).model_copy(update={"groups": (group,), "autoscaled": True})

    (found,) = bad(asks, cluster)
    assert found.severity == "warning"
    other = cluster.model_copy(update={"groups": (offering("other", of=NodeGroup, most=2),)})
    (found,) = bad(asks, other)
    assert found.severity == "fatal"


def test_a_custom_resource_is_shared_by_its_amount() -> None:
    half = Demand("x", 1, 1, cpus=1, gpus=0, resources={"gang": 0.5})
    assert room_for(half, [offering("gang"), offering()]) == 2


def test_workers_of_an_arm_that_makes_no_labels_are_not_asked_for() -> None:
    plain = RunConfig.model_validate({"finetune": {"start": "backbone"}})
    assert plain.unused_workers == ("cluster", "label")
    settings = RuntimeConfig.model_validate({"label": {"workers": 1, "cpus": 64}})
    one = facts((4, 0))
    assert "runtime.label" in str([f.item for f in check_room(settings, one)])
    assert "runtime.label" not in str([f.item for f in check_room(settings, one, ("label",))])
