"""Training on nodes that come and go: the curve does not know it.

Nodes are raylets of this machine (``ray.cluster_utils.Cluster``); removing one kills it and its workers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray
from ray._private.node import Node
from ray._private.state import actors
from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue]
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2
from support.local_ray import local_nodes
from support.one_process import Tiny
from support.retrain_case import OTHER_ORDER_OF_SUMS, STEPS, Case, case

from gmp_atl_dist import runtime
from gmp_atl_dist.config import TrainWorkersConfig
from gmp_atl_dist.runtime import gang
from gmp_atl_dist.training.loop import run_training

pytest_plugins = ["support.one_process"]
pytestmark = pytest.mark.timeout(900)

PAUSE_S = 0.1
NOTICE_S = 12.0


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """A head without cores."""
    with local_nodes() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def undisturbed(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Case:
    made = case(tiny, tmp_path_factory.mktemp("undisturbed"))
    assert made.by(2) == [0, 0]
    return made


def train(made: Case, **workers: int) -> None:
    """By Ray, on one or two workers as there is room for."""
    made.recipe.pause_s = PAUSE_S
    config = TrainWorkersConfig.model_validate({"workers": [1, 2], "max_failures": 3, **workers})
    job = made.with_workers(config)
    runtime.train(run_training, job, name=job.key.fingerprint, store=made.job.store, config=config)


@contextmanager
def under_way(made: Case, **workers: int) -> Iterator[None]:
    """Nodes come and go in the main thread, which is the one that Ray starts them from."""
    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(train, made, **workers)
        yield
        training.result()


def until(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline_s, f"no {what} after two minutes"
        time.sleep(0.1)


def have_two_nodes(cluster: Cluster) -> None:
    """Whatever a test before this one took away; with each there is room for one worker."""
    while len(cluster.worker_nodes) < 2:
        cluster.add_node(num_cpus=1)
    until(lambda: ray.cluster_resources().get("CPU") == 2, "room for two workers")


def a_node_with_a_worker(cluster: Cluster) -> Node:
    """Not that of the controller, which is on any."""
    alive = actors(job_id=None, actor_state_name="ALIVE").values()
    homes = {a["Address"]["NodeID"] for a in alive if "RayTrainWorker" in a["ActorClassName"]}
    for node in cluster.worker_nodes:
        if node.node_id in homes:
            return node
    raise LookupError(f"no worker on any node, but {[a['ActorClassName'] for a in alive]}")


def drain(node_id: str | None, cluster: Cluster, in_s: float) -> None:
    """What a spot notice makes of a node."""
    accepted, why = GcsClient(address=cluster.address).drain_node(
        node_id,
        autoscaler_pb2.DRAIN_NODE_REASON_PREEMPTION,  # pyright: ignore[reportAttributeAccessIssue]
        "spot notice",
        int((time.time() + in_s) * 1000),
    )
    assert accepted, why


@pytest.mark.nightly
def test_a_removed_node_leaves_the_same_curve(
    nodes: Cluster, tiny: Tiny, undisturbed: Case, tmp_path: Path
) -> None:
    made = case(tiny, tmp_path)
    have_two_nodes(nodes)

    with under_way(made, checkpoint_every_steps=10):
        until(lambda: bool(made.checkpoint_steps()), "checkpoint")
        nodes.remove_node(a_node_with_a_worker(nodes), allow_graceful=False)

    assert made.resumed_at, "it was not disturbed"
    assert all(0 < step < STEPS for step in made.resumed_at)
    made.check_like(undisturbed, OTHER_ORDER_OF_SUMS)
    made.check_samples()


@pytest.mark.nightly
def test_a_notice_saves_and_a_new_node_is_taken_in(
    nodes: Cluster,
    tiny: Tiny,
    undisturbed: Case,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gang, "_RESIZE_EVERY_S", 2.0)
    made = case(tiny, tmp_path)
    have_two_nodes(nodes)

    # No checkpoint but what a notice, or the clock, asks for.
    with under_way(made, checkpoint_every_steps=100_000):
        until(lambda: made.progress() > 3, "update")
        node = a_node_with_a_worker(nodes)
        drain(node.node_id, nodes, NOTICE_S)
        until(lambda: bool(made.checkpoint_steps()), "checkpoint")
        nodes.remove_node(node, allow_graceful=False)
        until(lambda: made.world_sizes()[-1:] == [1], "training on what is left")
        nodes.add_node(num_cpus=1)

    assert made.world_sizes() == [2, 1, 2]
    # Once or twice: what one worker did since is lost when the new one comes.
    assert made.resumed_at, "it was not disturbed"
    made.check_like(undisturbed, OTHER_ORDER_OF_SUMS)
    made.check_samples()
