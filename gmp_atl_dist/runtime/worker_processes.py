"""What runs in the processes of a pool: rows in, rows out, threads pinned."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import pyarrow as pa

from gmp_atl_dist.device import pin_threads
from gmp_atl_dist.errors import GmpAtlError, WorkerError
from gmp_atl_dist.runtime.attempts import Attempts
from gmp_atl_dist.runtime.metrics import Clock, WorkerMetrics
from gmp_atl_dist.runtime.work import PoolWorker, StreamWorker, Task, TaskReader, TaskWorker
from gmp_atl_dist.tags import Tags

ArgumentT = TypeVar("ArgumentT")
T = TypeVar("T")
P = ParamSpec("P")

_START = "start of a worker"


@dataclass(frozen=True)
class Setting:
    """What a process is told beside its worker and argument."""

    threads: int
    tags: Tags
    begun: Attempts


class Mapper:
    """A process of ``map_tasks``."""

    def __init__(
        self, worker: Callable[[ArgumentT], TaskWorker], argument: ArgumentT, setting: Setting
    ) -> None:
        pin_threads(setting.threads)
        self._worker = _attempt(_START, worker, argument)
        self._account = _Account(setting)

    def __call__(self, row: dict[str, str]) -> dict[str, object]:
        task = Task(row["name"], row["payload"])
        return self._account.done(task, _attempt(task.name, self._work, task))

    def _work(self, task: Task) -> str:
        with self._account.computing(task):
            return _value(self._worker)(task)


class Reader:
    """A process of ``stream_tasks`` that reads: a row a task, its table as a stream of Arrow's."""

    def __init__(self, reader: Callable[[], TaskReader], setting: Setting) -> None:
        self._reader = _attempt(_START, reader)
        pin_threads(setting.threads)
        self._begun = setting.begun

    def __call__(self, rows: pa.Table) -> pa.Table:
        task = _task_of(rows)
        self._begun.begin(task.name)
        read = _attempt(task.name, self._read, task)
        self._begun.done(task.name)
        error = pickle.dumps(read) if isinstance(read, GmpAtlError) else b""
        table = pa.py_buffer(b"") if isinstance(read, GmpAtlError) else read
        columns = [pa.array([task.name]), pa.array([task.payload]), _one_value(table)]
        return pa.table([*columns, pa.array([error])], names=["name", "payload", "table", "error"])

    def _read(self, task: Task) -> pa.Buffer:
        table = _value(self._reader)(task)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        return sink.getvalue()


class Computer:
    """A process of ``stream_tasks`` that computes.

    Calls come in several threads. All computing is done in one more, so that whatever a library keeps
    a thread (how many threads it uses, its modes, its streams) is the same for every task.
    """

    def __init__(
        self, worker: Callable[[ArgumentT], StreamWorker], argument: ArgumentT, setting: Setting
    ) -> None:
        self._device = ThreadPoolExecutor(1, initializer=pin_threads, initargs=(setting.threads,))
        self._worker = self._device.submit(_attempt, _START, worker, argument).result()
        self._account = _Account(setting)

    def __call__(self, rows: pa.Table) -> pa.Table:
        task = _task_of(rows)
        return pa.Table.from_pylist(
            [self._account.done(task, _attempt(task.name, self._work, task, rows))]
        )

    def _work(self, task: Task, rows: pa.Table) -> str:
        error = rows["error"][0].as_py()
        if error:
            raise pickle.loads(error)
        table = pa.ipc.open_stream(_only_value(rows["table"])).read_all()
        put = self._device.submit(self._compute, task, table).result()
        return put()

    def _compute(self, task: Task, table: pa.Table) -> Callable[[], str]:
        with self._account.computing(task):
            return _value(self._worker).compute(task, table)


class PoolProcess:
    """A process of ``open_pool``. Errors of ours are answers, because Ray would log them at length."""

    def __init__(
        self,
        worker: Callable[[ArgumentT], PoolWorker[object, object]],
        argument: ArgumentT,
        threads: int,
        tags: Tags,
    ) -> None:
        pin_threads(threads)
        self._worker = _attempt(_START, worker, argument)
        self._clock = Clock()
        self._metrics = WorkerMetrics(tags)

    def ready(self) -> GmpAtlError | None:
        """Answers once the process is there; with the error, if making the worker failed."""
        return self._worker if isinstance(self._worker, GmpAtlError) else None

    def answer(self, task: Task, order: object) -> object:
        with self._clock:
            found = _attempt(task.name, self._work, task, order)
        if not isinstance(found, GmpAtlError):
            self._metrics.show(self._clock.busy_s, self._clock.alive_s)
        return found

    def _work(self, task: Task, order: object) -> object:
        return _value(self._worker)(task, order)


class _Account:
    """What a process tells of itself: to the driver, to Ray's metrics, and for whoever must die."""

    def __init__(self, setting: Setting) -> None:
        import ray

        # Of the process, unlike the actor's: one that was started again counts from 0.
        self._worker = ray.get_runtime_context().get_worker_id()
        self._clock = Clock()
        self._metrics = WorkerMetrics(setting.tags)
        self._begun = setting.begun

    def computing(self, task: Task) -> Clock:
        self._begun.begin(task.name)
        return self._clock

    def done(self, task: Task, result: str | GmpAtlError) -> dict[str, object]:
        """The row that goes to the driver."""
        self._begun.done(task.name)
        failed = isinstance(result, GmpAtlError)
        busy_s, alive_s = self._clock.busy_s, self._clock.alive_s
        if not failed:
            self._metrics.show(busy_s, alive_s)
        return {
            "name": task.name,
            "result": "" if failed else result,
            "worker": self._worker,
            "busy_s": busy_s,
            "alive_s": alive_s,
            "error": pickle.dumps(result) if failed else b"",
        }


def _attempt(what: str, f: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | GmpAtlError:
    """What ``f`` returns, or the error that it raises, as one of ours.

    Errors travel as values, because Ray would log them at length and lose what they were.
    """
    try:
        return f(*args, **kwargs)
    except GmpAtlError as e:
        return e
    except Exception as e:
        return WorkerError(
            f"{what}: {type(e).__name__}: {e}; no error that we know, so report it with what "
            f"follows:\n{traceback.format_exc()}"
        )


def _value(attempted: T | GmpAtlError) -> T:
    if isinstance(attempted, GmpAtlError):
        raise attempted
    return attempted


def _task_of(rows: pa.Table) -> Task:
    (name,), (payload,) = rows["name"].to_pylist(), rows["payload"].to_pylist()
    return Task(name, payload)


def _one_value(data: pa.Buffer) -> pa.Array:
    """A column of one value without copying it."""
    offsets = pa.array([0, data.size], pa.int64()).buffers()[1]
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, data])


def _only_value(column: pa.ChunkedArray) -> pa.Buffer:
    """Its bytes where they lie, in shared memory; a scalar of pyarrow's would be a copy."""
    (array,) = [chunk for chunk in column.chunks if len(chunk)]
    _, offsets, data = array.buffers()
    start, end = memoryview(offsets).cast("q")[array.offset : array.offset + 2]
    return data.slice(start, end - start)
