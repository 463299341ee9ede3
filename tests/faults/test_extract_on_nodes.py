"""Extraction on several nodes: the same bytes from any number of workers, and when they die.

Nodes are raylets of this machine (``ray.cluster_utils.Cluster``); removing one kills it and its workers.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster
from support.local_ray import local_nodes
from support.one_process import FOLD, Tiny, no_ray
from support.slow_model import load_slow

from gmp_atl_dist.config import StreamWorkersConfig
from gmp_atl_dist.inference.audio_slices import AudioSelection, AudioSlices
from gmp_atl_dist.inference.extractor import Extractor, ExtractorArgument, ForwardArgument
from gmp_atl_dist.stages.base import Context
from gmp_atl_dist.stages.frame_index import frame_index
from gmp_atl_dist.stages.mapped import map_parts
from gmp_atl_dist.stages.part_plan import plan_parts
from gmp_atl_dist.store.features import feature_part_name
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.training_set import TrainingSet
from gmp_atl_dist.store.writer import ArtifactWriter
from gmp_atl_dist.tags import Tags

pytest_plugins = ["support.one_process"]
pytestmark = pytest.mark.timeout(900)

LAYERS = (2, 3)
PART_FRAMES = 40


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """A head without cores, and a node; tests that need another one add it."""
    with local_nodes(1, num_cpus=4) as cluster:
        yield cluster


def extracted(tiny: Tiny, root: Path, workers: int) -> dict[str, str]:
    """sha256 of every part."""
    context: Context = tiny.with_root(root)
    training = TrainingSet(tiny.corpus, FOLD.transductive_speakers())
    settings = StreamWorkersConfig(workers=workers, readers=1, batch_s=60.0)
    heard = AudioSelection(training)
    forward = ForwardArgument(heard, tiny.backbone, load_slow, LAYERS, 3000, 250, 60.0)
    key = ArtifactKey("extract", "0" * 64)
    out = ArtifactWriter(context.store, key)
    map_parts(
        context,
        out,
        Tags(stage="extract"),
        plan_parts(frame_index(training), PART_FRAMES),
        Extractor,
        ExtractorArgument(forward, "none", context.store, key),
        settings,
        outputs=lambda name: [feature_part_name(name, layer) for layer in LAYERS],
        reader=partial(AudioSlices, heard),
    )
    return {r.name: r.sha256 for r in out.seal(version=1, science={}, inputs={}).manifest.receipts}


@pytest.fixture(scope="module")
def expected(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """By one process without Ray."""
    folder = tmp_path_factory.mktemp("one")
    with no_ray():
        return extracted(tiny, folder / "root", 1)


def receipts(root: Path) -> list[Path]:
    return list(root.glob("artifacts/extract/*/receipts/parts/*.json"))


def once_some_are_done(root: Path, act: object) -> threading.Thread:
    """Call ``act`` when a few parts are done, and many are not."""

    def wait() -> None:
        deadline_s = time.monotonic() + 300
        while len(receipts(root)) < 6 and time.monotonic() < deadline_s:
            time.sleep(0.02)
        assert callable(act)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.mark.nightly
def test_four_workers_write_the_same_bytes(
    nodes: Cluster, tiny: Tiny, expected: dict[str, str], tmp_path: Path
) -> None:
    """As one process; tests/integration/test_pipeline.py has one and two workers of Ray."""
    assert len(expected) > 30
    have_two(nodes)
    assert extracted(tiny, tmp_path, 4) == expected


def have_two(nodes: Cluster) -> None:
    """Two nodes, with room for all workers on either."""
    while len(nodes.worker_nodes) < 2:
        nodes.add_node(num_cpus=4)


def computing() -> list[psutil.Process]:
    """Worker processes of this test's Ray that hold a model."""
    found = []
    for process in psutil.Process().children(recursive=True):
        title = " ".join(process.cmdline())
        if "MapWorker" in title and "ComputeProcess" in title:
            found.append(process)
    return found


def test_a_killed_actor_changes_no_byte(
    nodes: Cluster, tiny: Tiny, expected: dict[str, str], tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill() -> None:
        victim = computing()[0]
        killed.append(len(receipts(tmp_path)))
        os.kill(victim.pid, signal.SIGKILL)

    thread = once_some_are_done(tmp_path, kill)
    found = extracted(tiny, tmp_path, 2)
    thread.join()
    assert found == expected
    assert killed
    assert killed[0] < len(expected)


@pytest.mark.nightly
def test_a_removed_node_changes_no_byte(
    nodes: Cluster, tiny: Tiny, expected: dict[str, str], tmp_path: Path
) -> None:
    have_two(nodes)
    removed: list[int] = []

    def remove() -> None:
        removed.append(len(receipts(tmp_path)))
        # The driver's own node is the head; either of the others may hold any of the workers.
        nodes.remove_node(sorted(nodes.worker_nodes, key=lambda n: n.node_id)[0])

    thread = once_some_are_done(tmp_path, remove)
    found = extracted(tiny, tmp_path, 4)
    thread.join()
    assert found == expected
    assert removed
    assert removed[0] < len(expected)
