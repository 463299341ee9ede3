"""Pools of workers on a real Ray: reading, computing, errors, and workers that die."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray
from support.local_ray import local_ray

from gmp_atl_dist.config import StreamWorkersConfig, TrainWorkersConfig, WorkersConfig
from gmp_atl_dist.errors import ArtifactError, CorpusError, GmpAtlError, ModelError, WorkerError
from gmp_atl_dist.runtime import (
    DeviceWork,
    Gang,
    Task,
    TaskResult,
    map_tasks,
    open_pool,
    stream_tasks,
    train,
)
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.tags import Tags

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

HERE = Path(__file__).parent
OBJECT_STORE_BYTES = 100 << 20
HANGS_S = 300.0


@dataclass(frozen=True)
class Plan:
    """What reader and worker do beside their work, and where they write it down."""

    folder: Path
    table_bytes: int = 80
    read_s: float = 0.0
    compute_s: float = 0.0
    put_s: float = 0.0

    def note(self, what: str, task: Task) -> None:
        line = f"{time.monotonic():.3f} {what} {task.name} {os.getpid()}\n"
        with (self.folder / "notes").open("a") as f:
            f.write(line)

    def notes(self, what: str) -> list[tuple[float, str, int]]:
        """(when, task, process) of every ``what``, in order of time."""
        rows = [line.split() for line in (self.folder / "notes").read_text().splitlines()]
        return sorted((float(r[0]), r[2], int(r[3])) for r in rows if r[1] == what)

    def wait_for_another(self, what: str) -> None:
        deadline = time.monotonic() + HANGS_S
        while len({process for *_, process in self.notes(what)}) < 2:
            if time.monotonic() > deadline:
                raise WorkerError("there is only one")
            time.sleep(0.05)

    def die_once(self, task: Task) -> None:
        try:
            (self.folder / f"died-{task.name}").touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


class Reads:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def __call__(self, task: Task) -> pa.Table:
        self._plan.note("read", task)
        if task.payload == "bad recording":
            raise CorpusError(f"recording of {task.name} is bad")
        if task.payload == "kills its reader once":
            self._plan.die_once(task)
        time.sleep(self._plan.read_s)
        table = pa.table({"sample": np.arange(self._plan.table_bytes // 8)})
        return table.replace_schema_metadata({"of": task.name})


class Computes:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def compute(self, task: Task, table: pa.Table) -> Callable[[], str]:
        plan = self._plan
        plan.note("compute", task)
        if task.payload == "waits for another worker":
            plan.wait_for_another("compute")
        if task.payload == "bad model":
            raise ModelError(f"{task.name} is not finite")
        if task.payload == "kills its worker":
            os.kill(os.getpid(), signal.SIGKILL)
        if task.payload == "kills its worker once":
            plan.die_once(task)
        time.sleep(plan.compute_s)
        receipt: dict[str, object] = {"name": task.name, "rows": table.num_rows, "audio_s": 2.5}
        receipt |= {"of": table.schema.metadata[b"of"].decode(), "sum": sum_of(table)}
        if task.payload == "tells its threads":
            receipt |= {"threads": threads()}
        plan.note("computed", task)

        def put() -> str:
            plan.note("put", task)
            if task.payload == "bad store":
                raise ArtifactError(f"{task.name} cannot be written")
            time.sleep(plan.put_s)
            plan.note("done", task)
            return json.dumps([receipt])

        return put


def threads() -> int:
    import torch  # takes two seconds, which no other task should wait for

    return torch.get_num_threads()


def sum_of(table: pa.Table) -> int:
    return int(table["sample"].to_numpy().sum())


class Maps:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def __call__(self, task: Task) -> str:
        self._plan.note("map", task)
        if task.payload == "waits for another worker":
            self._plan.wait_for_another("map")
        if task.payload == "kills its worker":
            os.kill(os.getpid(), signal.SIGKILL)
        if task.payload == "defect":
            print(1 / 0)
        return json.dumps([{"name": task.name}])


@dataclass(frozen=True)
class Found:
    """What another run has stored: ``at_first`` from the start, ``later`` after they were read here."""

    plan: Plan
    at_first: tuple[str, ...] = ()
    later: tuple[str, ...] = ()

    def __call__(self, task: Task) -> str | None:
        read = {name for _, name, _ in self.plan.notes("read")}
        if task.name in self.at_first or (task.name in self.later and task.name in read):
            return json.dumps([{"name": task.name, "rows": 1, "audio_s": 9.0, "of": "another run"}])
        return None


class CannotStart(Maps):
    def __init__(self, plan: Plan) -> None:
        raise ModelError("cannot be loaded")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def metrics_port() -> Iterator[int]:
    """One Ray of two cores for all tests of this module, and where it exports its metrics."""
    port = free_port()
    with local_ray(
        HERE,  # workers import this module
        num_cpus=2,
        num_gpus=2,  # of which Ray only counts
        resources={"decode": 1, "gang": 1},
        object_store_memory=OBJECT_STORE_BYTES,
        _metrics_export_port=port,
        # As often as Ray can; ten times that is what it does unless told.
        _system_config={"metrics_report_interval_ms": 1000},
    ):
        yield port


@pytest.fixture
def plan(tmp_path: Path, metrics_port: int) -> Plan:
    return Plan(tmp_path)


def tasks(count: int, **payloads: str) -> list[Task]:
    return [Task(f"t{i}", payloads.get(f"t{i}", "")) for i in range(count)]


def streamed(
    plan: Plan,
    work: Sequence[Task],
    workers: int | tuple[int, int] = 1,
    readers: int = 1,
    retries: int = 1,
) -> list[TaskResult]:
    config = StreamWorkersConfig(workers=workers, readers=readers)
    return list(
        stream_tasks(work, partial(Reads, plan), Computes, plan, workers=config, retries=retries)
    )


def receipts(results: Sequence[TaskResult]) -> dict[str, dict[str, object]]:
    assert len({r.name for r in results}) == len(results), "a task came back twice"
    return {r.name: json.loads(r.result)[0] for r in results}


class WorksOnDevice(Computes):
    """The device needs ``compute_s`` after the work was started, as a GPU does."""

    def compute(self, task: Task, table: pa.Table) -> Callable[[], str]:
        put = Computes(replace(self._plan, compute_s=0.0)).compute(task, table)
        return DeviceWork(partial(time.sleep, self._plan.compute_s), put)


@pytest.mark.slow
def test_work_of_a_device_is_counted_and_so_is_reading(plan: Plan) -> None:
    """Nothing was counted of what a GPU does after a part was started."""
    slow = replace(plan, read_s=0.1, compute_s=0.3)
    config = StreamWorkersConfig(workers=1, readers=1)
    results = list(
        stream_tasks(tasks(4), partial(Reads, slow), WorksOnDevice, slow, workers=config, retries=0)
    )
    assert all(0.1 <= r.read_s < 1 for r in results)
    last = max(results, key=lambda r: r.alive_s)
    # Two may be in work at a time.
    assert last.busy_s >= 0.3 * 4 / 3
    assert receipts(results).keys() == {"t0", "t1", "t2", "t3"}


@pytest.mark.nightly
def test_any_number_of_workers_gives_the_same(plan: Plan) -> None:
    one = streamed(plan, tasks(12, t7="tells its threads"))
    # More than there are cores for: those that cannot start do not keep the others from working.
    four = streamed(plan, tasks(12, t7="tells its threads"), workers=4, readers=2)

    assert receipts(one) == receipts(four)
    assert receipts(one)["t7"] == {
        **{"name": "t7", "of": "t7", "rows": 10, "sum": 45, "audio_s": 2.5, "threads": 1}
    }
    assert len({r.worker for r in one}) == 1
    assert all(0 <= r.busy_s <= r.alive_s for r in one)
    readers, workers = ({p for *_, p in plan.notes(what)} for what in ("read", "compute"))
    assert readers.isdisjoint(workers), "Ray Data made one operator of the two"
    assert os.getpid() not in readers | workers


def test_a_worker_has_its_audio_when_it_needs_it_and_readers_do_not_run_away(plan: Plan) -> None:
    # Ray Data's share of the object store is half of it, and all tables would be more than that.
    plan = replace(plan, table_bytes=8 << 20, compute_s=0.4, put_s=0.35, read_s=0.05)
    results = streamed(plan, tasks(14))

    assert len(receipts(results)) == 14
    begun, ended = plan.notes("compute"), plan.notes("computed")
    reads, done = plan.notes("read"), plan.notes("done")
    read_at, put_at = ({task: at for at, task, _ in notes} for notes in (reads, done))
    ahead = [i + 1 - sum(d < read for d, *_ in done) for i, (read, *_) in enumerate(reads)]
    assert 2 <= max(ahead) <= OBJECT_STORE_BYTES / plan.table_bytes, ahead
    # One computes at a time, on what was read while the one before was computed, whose put goes on.
    pairs = [(e, of, b, task) for (e, of, _), (b, task, _) in zip(ended, begun[1:], strict=False)]
    assert all(e <= b for e, _, b, _ in pairs)
    overlapping = [read_at[task] < e and b < put_at[of] for e, of, b, task in pairs]
    # A busy machine may be late for some of them.
    assert sum(overlapping) > 0.75 * len(pairs), overlapping


def test_what_another_run_has_stored_is_neither_read_nor_computed(plan: Plan) -> None:
    plan.note("begin", Task("-"))
    found = Found(plan, at_first=("t1", "t4"), later=("t2",))
    config = StreamWorkersConfig(workers=1, readers=1)
    results = list(
        stream_tasks(
            *(tasks(6), partial(Reads, plan), Computes, plan),
            **{"workers": config, "retries": 0, "stored": found},
        )
    )
    assert {r.name for r in results if r.found} == {"t1", "t2", "t4"}
    of = {name: receipt["of"] for name, receipt in receipts(results).items()}
    assert of == {f"t{i}": "another run" if i in (1, 2, 4) else f"t{i}" for i in range(6)}
    assert {name for _, name, _ in plan.notes("read")} == {"t0", "t2", "t3", "t5"}
    assert {name for _, name, _ in plan.notes("compute")} == {"t0", "t3", "t5"}

    mapped = map_tasks(
        tasks(3),
        Maps,
        plan,
        workers=WorkersConfig(),
        retries=0,
        stored=Found(plan, at_first=("t1",)),
    )
    assert {r.name: r.found for r in mapped} == {"t0": False, "t1": True, "t2": False}
    assert {name for _, name, _ in plan.notes("map")} == {"t0", "t2"}


class MapsAndStores:
    """Stores the first task only when the second one is being computed."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._computing = 0
        self._second = threading.Event()

    def __call__(self, task: Task) -> str:
        return self.begin(task)()

    def begin(self, task: Task) -> Callable[[], str]:
        self._computing += 1
        try:
            if self._computing != 1:
                raise ModelError("two tasks are computed at the same time")
            self._plan.note("compute", task)
            if len(self._plan.notes("compute")) == 2:
                self._second.set()
            time.sleep(0.05)
        finally:
            self._computing -= 1
        return partial(self._store, task)

    def _store(self, task: Task) -> str:
        if not self._second.wait(HANGS_S):
            raise ModelError("nothing is computed while a result is stored")
        return json.dumps([task.name])


def test_a_mapped_worker_computes_while_it_stores(plan: Plan) -> None:
    results = list(map_tasks(tasks(6), MapsAndStores, plan, workers=WorkersConfig(), retries=0))
    assert sorted(receipts(results)) == [f"t{i}" for i in range(6)]


@pytest.mark.nightly
def test_workers_with_gpus_are_given_them(plan: Plan) -> None:
    streams = StreamWorkersConfig(workers=2, gpus=1, readers=1)
    reads = partial(Reads, plan)
    results = list(stream_tasks(tasks(6), reads, Computes, plan, workers=streams, retries=0))
    assert sorted(receipts(results)) == [f"t{i}" for i in range(6)]
    mapped = map_tasks(tasks(3), Maps, plan, workers=WorkersConfig(gpus=0.5), retries=0)
    assert len(list(mapped)) == 3


@pytest.mark.parametrize(
    ("payload", "kind", "message"),
    [
        ("bad recording", CorpusError, "recording of t2 is bad"),
        ("bad model", ModelError, "t2 is not finite"),
        ("bad store", ArtifactError, "t2 cannot be written"),
    ],
)
def test_errors_of_ours_come_back_as_they_were(
    plan: Plan, payload: str, kind: type[GmpAtlError], message: str
) -> None:
    with pytest.raises(kind) as e:
        streamed(plan, tasks(4, t2=payload))
    assert type(e.value) is kind
    assert e.value.message == message


def test_errors_of_mapped_workers_come_back(plan: Plan) -> None:
    def run(worker: Callable[[Plan], Maps]) -> None:
        work = tasks(3, t1="defect")
        list(map_tasks(work, worker, plan, workers=WorkersConfig(), retries=0))

    with pytest.raises(ModelError, match=r"^cannot be loaded$"):
        run(CannotStart)
    with pytest.raises(WorkerError, match=r"^t1: ZeroDivisionError: division by zero; ") as e:
        run(Maps)
    assert "in __call__\n    print(1 / 0)" in e.value.message


@pytest.mark.faults
def test_the_tasks_of_a_process_that_dies_are_done_again(plan: Plan) -> None:
    work = tasks(10, t2="kills its reader once", t6="kills its worker once")
    results = streamed(plan, work, workers=2, readers=2)

    assert sorted(receipts(results)) == [f"t{i}" for i in range(10)]
    reads, computes = (Counter(t for _, t, _ in plan.notes(w)) for w in ("read", "compute"))
    assert (reads["t2"], computes["t6"]) == (2, 2)


@pytest.mark.faults
def test_what_always_kills_its_worker_is_named(plan: Plan) -> None:
    with pytest.raises(
        WorkerError, match=r"started 2 times and never finished: t3; not finished: .*t3"
    ):
        streamed(plan, tasks(6, t3="kills its worker"), retries=1)
    assert Counter(name for _, name, _ in plan.notes("compute"))["t3"] == 2

    work = tasks(3, t1="kills its worker")
    results = map_tasks(work, Maps, plan, workers=WorkersConfig(), retries=1)
    with pytest.raises(
        WorkerError, match=r"started 2 times and never finished: t1; .*runtime\.task_retries"
    ):
        list(results)
    assert Counter(name for _, name, _ in plan.notes("map"))["t1"] == 2


@pytest.mark.nightly
def test_pools_grow_to_their_maximum_and_no_further(plan: Plan) -> None:
    work = [Task(f"t{i}", "waits for another worker") for i in range(12)]
    assert len({r.worker for r in streamed(plan, work, workers=(1, 2))}) == 2

    config = WorkersConfig(workers=(1, 2))
    results = list(map_tasks(work, Maps, plan, workers=config, retries=0))
    assert len(results) == 12
    assert len({r.worker for r in results}) == 2


def test_what_workers_did_is_in_rays_metrics(plan: Plan, metrics_port: int) -> None:
    config = StreamWorkersConfig(readers=2, reader_cpus=0.5)
    tags = Tags("run1", "extract", "fold7")
    work = stream_tasks(
        tasks(4), partial(Reads, plan), Computes, plan, workers=config, retries=0, tags=tags
    )
    # The last one is not taken yet, so that nothing is over.
    assert len([next(work) for _ in range(3)]) == 3

    def exported() -> dict[str, float]:
        url = f"http://127.0.0.1:{metrics_port}/metrics"
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        lines = direct.open(url, timeout=10).read().decode().splitlines()
        words = ('run="run1"', 'stage="extract"', 'fold="fold7"')
        mine = [line for line in lines if all(word in line for word in words)]
        return {line.partition("{")[0]: float(line.split()[-1]) for line in mine}

    expected = {
        "ray_gmp_atl_parts_done": 3,
        "ray_gmp_atl_parts_planned": 4,
        "ray_gmp_atl_parts_total": 3,
        "ray_gmp_atl_utterances_total": 30,
        "ray_gmp_atl_audio_seconds_total": 7.5,
    }
    # Processes report at times of their own, and a report's series come one after another. A process
    # that has no more to do may be ended while the driver still waits to report.
    found: dict[str, float] = {}
    deadline = time.monotonic() + HANGS_S
    while time.monotonic() < deadline:
        found |= exported()
        if "ray_gmp_atl_busy_share" in found and expected.items() <= found.items():
            break
        time.sleep(0.2)
    assert 0 < found.pop("ray_gmp_atl_busy_share") <= 1
    assert found == expected
    assert len(list(work)) == 1


def custom() -> list[str]:
    """What Ray has set aside for this process besides cores; a gang's names carry its group's id."""
    return sorted(
        name.partition("_group_")[0]
        for name in ray.get_runtime_context().get_assigned_resources()
        if name.startswith(("decode", "gang"))
    )


class SaysWhatItReads(Reads):
    def __call__(self, task: Task) -> pa.Table:
        return pa.table({"by": [custom()]})


class SaysWhatItHas(Computes):
    def compute(self, task: Task, table: pa.Table) -> Callable[[], str]:
        said = json.dumps([table["by"][0].as_py(), custom()])
        return lambda: said


class Answers:
    def __init__(self, plan: Plan) -> None:
        pass

    def __call__(self, task: Task, request: str) -> list[str]:
        return custom()


def note_resources(folder: str, gang: Gang) -> None:
    (Path(folder) / f"rank{gang.rank}").write_text(json.dumps(sorted(set(custom()))))


def test_custom_resources_choose_who_reads_and_who_computes(plan: Plan) -> None:
    config = StreamWorkersConfig(resources={"gang": 1}, reader_resources={"decode": 0.5})

    (result,) = stream_tasks(
        tasks(1), partial(SaysWhatItReads, plan), SaysWhatItHas, plan, workers=config, retries=0
    )

    assert json.loads(result.result) == [["decode"], ["gang"]]


@pytest.mark.nightly
def test_custom_resources_of_a_pool_and_of_a_gang(plan: Plan) -> None:
    workers = WorkersConfig(resources={"decode": 1})
    with open_pool(Answers, plan, workers=workers, most=1, retries=0, stalled_after_s=60.0) as pool:
        assert list(pool.ask(tasks(1), "what")) == [["decode"]]

    folder, store = str(plan.folder), Store((plan.folder / "root").as_uri())
    config = TrainWorkersConfig(resources={"gang": 1}, max_failures=0)
    train(note_resources, folder, name="a-gang", store=store, config=config)
    assert json.loads((plan.folder / "rank0").read_text()) == ["gang"]
