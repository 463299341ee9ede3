"""Two drivers that work on one artefact at the same time, each with its own Ray: they share its parts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
from support.local_ray import TESTS, local_ray

from gmp_atl_dist import runtime
from gmp_atl_dist.config import RuntimeConfig, WorkersConfig
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.stages.base import Context
from gmp_atl_dist.stages.mapped import map_parts
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey, receipts_json
from gmp_atl_dist.store.writer import ArtifactWriter
from gmp_atl_dist.tags import Tags

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(900)]

KEY = ArtifactKey("extract", "6" * 64)
TASKS = [Task(f"part{i:02d}") for i in range(40)]
PART_S = 0.5


class Notes:
    """Stores a part, and notes in a file of its own that it computed it."""

    def __init__(self, root: str) -> None:
        self._root = Path(root)

    def __call__(self, task: Task) -> str:
        time.sleep(PART_S)
        (self._root / f"computed-{task.name}-{os.getpid()}").touch()
        out = ArtifactWriter(Store.open(str(self._root)), KEY)
        return receipts_json([out.put_part(task.name, pa.table({"of": [task.name]}))])


def drive(root: str) -> None:
    """A driver: all parts, by one worker."""
    store, settings = Store.open(root), RuntimeConfig()
    with local_ray(Path(__file__).parent, num_cpus=1):
        context = Context(
            store, store, settings, Reporter(terminal=False), runtime.RayConnection(settings)
        )
        receipts = map_parts(
            *(context, ArtifactWriter(store, KEY), Tags(stage="extract"), TASKS, Notes, root),
            *(WorkersConfig(workers=1), lambda name: [name]),
        )
        print("receipts", len(receipts), flush=True)


def test_two_drivers_share_the_parts(tmp_path: Path) -> None:
    paths = [str(Path(__file__).parent), str(TESTS), str(TESTS.parent)]
    command = [sys.executable, "-c", f"import test_shared_root as t; t.drive({str(tmp_path)!r})"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    drivers = [
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [driver.communicate(timeout=600)[0] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0]
    assert all(f"receipts {len(TASKS)}" in text for text in said)
    store = Store.open(str(tmp_path))
    assert len(ArtifactWriter(store, KEY).done()) == len(TASKS)

    computed = [path.name for path in tmp_path.glob("computed-*")]
    assert {name.split("-")[1] for name in computed} == {task.name for task in TASKS}
    # Both may be computing one part when the other begins it, above all towards the end.
    assert len(computed) <= 1.25 * len(TASKS), said
    workers = {name.split("-")[2] for name in computed}
    assert len(workers) == 2, "one driver was done before the other began"
    assert all("parts were stored meanwhile by another run" in text for text in said)
