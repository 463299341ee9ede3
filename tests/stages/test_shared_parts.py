"""Parts that another run stores while a stage works on the same artefact."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pytest
from support.one_process import Tiny

from gmp_atl_dist.config import WorkersConfig
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.runtime import Task, TaskResult
from gmp_atl_dist.stages.base import Context
from gmp_atl_dist.stages.mapped import StoredParts, map_parts
from gmp_atl_dist.stages.progress import PartsProgress
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey, Receipt, receipts_json
from gmp_atl_dist.store.progress import ProgressFile, ProgressSnapshot
from gmp_atl_dist.store.writer import ArtifactWriter
from gmp_atl_dist.tags import Tags

pytest_plugins = ["support.one_process"]
pytestmark = pytest.mark.usefixtures("in_process")

KEY = ArtifactKey("extract", "5" * 64)
TASKS = [Task(f"part{i:02d}") for i in range(30)]


@dataclass(frozen=True)
class Work:
    """``computed`` gets the names; while ``at`` is computed, another run stores the parts ``others``."""

    store: Store
    computed: list[str]
    at: str = ""
    others: tuple[str, ...] = ()


def outputs(name: str) -> list[str]:
    """Two parts of each task, as extraction writes one of each layer."""
    return [f"{name}-1", f"{name}-2"]


def put(store: Store, name: str) -> Receipt:
    return ArtifactWriter(store, KEY).put_part(name, pa.table({"of": [name]}), audio_s=1.0)


class Worker:
    def __init__(self, work: Work) -> None:
        self._work = work

    def __call__(self, task: Task) -> str:
        self._work.computed.append(task.name)
        if task.name == self._work.at:
            for other in self._work.others:
                put(self._work.store, other)
        return receipts_json(put(self._work.store, name) for name in outputs(task.name))


@pytest.fixture
def context(tiny: Tiny, tmp_path: Path) -> Context:
    return tiny.with_root(tmp_path / "root")


def mapped(context: Context, work: Work) -> list[Receipt]:
    return map_parts(
        # That of the context was made for another test's output.
        replace(context, reporter=Reporter(terminal=False)),
        ArtifactWriter(context.store, KEY),
        Tags(stage="extract", fold="fold1"),
        TASKS,
        Worker,
        work,
        WorkersConfig(),
        outputs,
    )


def test_parts_that_another_run_stored_are_not_computed(
    context: Context, capsys: pytest.CaptureFixture[str]
) -> None:
    others = ("part07-1", "part07-2", "part09-1", "part09-2", "part11-2")
    work = Work(context.store, [], at="part03", others=others)
    receipts = mapped(context, work)
    # Of part11 one of two was missing.
    assert work.computed == [t.name for t in TASKS if t.name not in ("part07", "part09")]
    expected = sorted(f"parts/{name}.parquet" for task in TASKS for name in outputs(task.name))
    assert sorted(receipt.name for receipt in receipts) == expected
    out = capsys.readouterr().out
    assert "extract fold1: 2 of 30 parts were stored meanwhile by another run" in out


def test_nothing_is_said_where_nobody_else_works(
    context: Context, capsys: pytest.CaptureFixture[str]
) -> None:
    work = Work(context.store, [])
    mapped(context, work)
    assert work.computed == [task.name for task in TASKS]
    assert "meanwhile" not in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["no object", "short object", "bad receipt", "no receipt"])
def test_a_part_that_is_not_whole_is_computed(context: Context, damage: str) -> None:
    root = Path(context.store.absolute(KEY.prefix))
    stored = StoredParts(context.store, KEY, outputs)
    task = Task("part00")
    receipts = [put(context.store, name) for name in outputs(task.name)]
    assert stored(task) == receipts_json(receipts)

    part, receipt = root / "parts/part00-2.parquet", root / "receipts/parts/part00-2.parquet.json"
    if damage == "no object":
        part.unlink()
    elif damage == "short object":
        part.write_bytes(part.read_bytes()[:-1])
    elif damage == "bad receipt":
        receipt.write_text("{")
    else:
        receipt.unlink()
    assert stored(task) is None


def test_two_runs_at_once_have_different_orders(context: Context) -> None:
    """In the same order, the second would catch up with the first, and then repeat each of its parts."""
    snapshot = ProgressSnapshot(done=0, total=len(TASKS), unit="parts")
    ProgressFile(context.store, KEY).write(snapshot)
    work = Work(context.store, [])
    mapped(context, work)
    names = [task.name for task in TASKS]
    assert work.computed != names
    assert sorted(work.computed) == names


def test_what_another_run_stored_does_not_count_for_the_rate() -> None:
    now_s = [0.0]
    progress = PartsProgress(TASKS[:4], TASKS[:4], 0.0, lambda: now_s[0])
    text = receipts_json([Receipt(name="x", rows=10, bytes=1, sha256="0", audio_s=3600.0)])
    own = TaskResult("part00", text, "w", busy_s=9.0, alive_s=10.0)
    progress.add(own)
    progress.add(replace(own, name="part01", found=True, alive_s=11.0))
    now_s[0] = 3600.0
    snapshot = progress.snapshot()
    assert snapshot.done == 2
    assert snapshot.audio_s == 7200.0
    assert snapshot.audio_h_per_h == 1.0
    assert snapshot.busy_share == 0.9
    # Half of the parts were done in an hour by both runs together, so the other half takes one more.
    assert snapshot.ends_in_s == 3600.0
