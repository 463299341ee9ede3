"""What runs in worker processes. Each pins its threads and answers a task with a result or an error."""

from __future__ import annotations

import pickle
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import ParamSpec, TypeVar

import pyarrow as pa

from gmp_atl_dist.device import pin_threads, use_gpus
from gmp_atl_dist.errors import GmpAtlError, WorkerError
from gmp_atl_dist.gpu_state import full_memory_message, is_out_of_memory
from gmp_atl_dist.runtime.attempts import TaskAttempts
from gmp_atl_dist.runtime.metrics import Clock, WorkerMetrics
from gmp_atl_dist.runtime.work import (
    DeviceWork,
    FindStored,
    PoolWorker,
    StoringWorker,
    StreamWorker,
    Task,
    TaskReader,
    TaskWorker,
)
from gmp_atl_dist.runtime.worker_logs import call_log, work_done
from gmp_atl_dist.tags import Tags

ArgumentT = TypeVar("ArgumentT")
T = TypeVar("T")
P = ParamSpec("P")

_START = "start of a worker"


@dataclass(frozen=True)
class ProcessSettings:
    """What a process is given besides its worker and the worker's argument."""

    threads: int
    tags: Tags
    attempts: TaskAttempts
    gpus: float = 0.0
    stored: FindStored | None = None

    def found(self, task: Task) -> str | GmpAtlError | None:
        """The result of ``task`` if it is stored now, or the error of looking it up."""
        return None if self.stored is None else _attempt(task.name, self.stored, task)


class MapProcess:
    """A process of ``map_tasks``: one row per task in, one row per result out.

    Ray calls it from several threads where the worker is a ``StoringWorker``.
    """

    def __init__(
        self,
        worker: Callable[[ArgumentT], TaskWorker],
        argument: ArgumentT,
        settings: ProcessSettings,
    ) -> None:
        call_log(settings.tags.label or "work")
        use_gpus(settings.gpus)
        pin_threads(settings.threads)
        self._worker = _attempt(_START, worker, argument)
        self._settings = settings
        self._results = _ResultRows(settings)
        self._computing = Lock()

    def __call__(self, row: dict[str, str]) -> dict[str, object]:
        task = Task(row["name"], row["payload"])
        found = self._settings.found(task)
        if found is not None:
            return self._results.row(task, found, found=True)
        return self._results.row(task, _attempt(task.name, self._work, task))

    def _work(self, task: Task) -> str:
        with self._computing, self._results.computing(task):
            worker = _value(self._worker)
            if not isinstance(worker, StoringWorker):
                return worker(task)
            store = worker.begin(task)
        return store()


class ReadProcess:
    """A reading process of ``stream_tasks``: one row per task in; out, the same row with its table.

    The table is serialised as an Arrow IPC stream. A result that is stored already takes its place.
    """

    def __init__(self, reader: Callable[[], TaskReader], settings: ProcessSettings) -> None:
        call_log(settings.tags.label or "work")
        use_gpus(settings.gpus)
        self._reader = _attempt(_START, reader)
        pin_threads(settings.threads)
        self._settings = settings
        self._attempts = settings.attempts

    def __call__(self, rows: pa.Table) -> pa.Table:
        task = _task_of(rows)
        self._attempts.start(task.name)
        started_s = time.monotonic()
        found = self._settings.found(task)
        read = _attempt(task.name, self._read, task) if found is None else found
        read_s = time.monotonic() - started_s
        self._attempts.finish(task.name)
        work_done()
        error = pickle.dumps(read) if isinstance(read, GmpAtlError) else b""
        stored = read if isinstance(read, str) else ""
        table = read if isinstance(read, pa.Buffer) else pa.py_buffer(b"")
        columns = [pa.array([task.name]), pa.array([task.payload]), _one_value(table)]
        columns += [pa.array([stored]), pa.array([error]), pa.array([read_s])]
        return pa.table(columns, names=["name", "payload", "table", "stored", "error", "read_s"])

    def _read(self, task: Task) -> pa.Buffer:
        table = _value(self._reader)(task)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        return sink.getvalue()


class ComputeProcess:
    """A computing process of ``stream_tasks``.

    Ray calls it from several threads. One further thread does all computation, because libraries keep
    state per thread (number of threads, modes, streams), which must be the same for every task.
    """

    def __init__(
        self,
        worker: Callable[[ArgumentT], StreamWorker],
        argument: ArgumentT,
        settings: ProcessSettings,
    ) -> None:
        call_log(settings.tags.label or "work")
        use_gpus(settings.gpus)
        self._device = ThreadPoolExecutor(1, initializer=pin_threads, initargs=(settings.threads,))
        self._worker = self._device.submit(_attempt, _START, worker, argument).result()
        self._settings = settings
        self._results = _ResultRows(settings)

    def __call__(self, rows: pa.Table) -> pa.Table:
        task = _task_of(rows)
        found = rows["stored"][0].as_py() or None
        if found is None and not rows["error"][0].as_py():
            # It may have been stored while its table waited here.
            found = self._settings.found(task)
        if found is None:
            row = self._results.row(task, _attempt(task.name, self._work, task, rows))
        else:
            row = self._results.row(task, found, found=True)
        return pa.Table.from_pylist([row | {"read_s": rows["read_s"][0].as_py()}])

    def _work(self, task: Task, rows: pa.Table) -> str:
        error = rows["error"][0].as_py()
        if error:
            raise pickle.loads(error)
        table = pa.ipc.open_stream(_only_value(rows["table"])).read_all()
        put = self._device.submit(self._compute, task, table).result()
        if isinstance(put, DeviceWork):
            with self._results.clock:
                put.wait()
        return put()

    def _compute(self, task: Task, table: pa.Table) -> Callable[[], str]:
        with self._results.computing(task):
            return _value(self._worker).compute(task, table)


class PoolProcess:
    """A process of ``open_pool``. It returns errors as answers, because Ray would log them at length."""

    def __init__(
        self,
        worker: Callable[[ArgumentT], PoolWorker[object, object]],
        argument: ArgumentT,
        threads: int,
        tags: Tags,
        gpus: float = 0.0,
    ) -> None:
        call_log(tags.label or "work")
        use_gpus(gpus)
        pin_threads(threads)
        self._worker = _attempt(_START, worker, argument)
        self._clock = Clock()
        self._metrics = WorkerMetrics(tags)

    def ready(self) -> GmpAtlError | None:
        """Return once the process has started: None, or the error that making the worker raised."""
        return self._worker if isinstance(self._worker, GmpAtlError) else None

    def answer(self, task: Task, request: object) -> object:
        """The worker's answer, or the error that it raised."""
        with self._clock:
            answer = _attempt(task.name, self._work, task, request)
        if not isinstance(answer, GmpAtlError):
            self._metrics.show(self._clock.busy_s, self._clock.alive_s)
        work_done()
        return answer

    def _work(self, task: Task, request: object) -> object:
        return _value(self._worker)(task, request)


class _ResultRows:
    """Makes the rows for the driver, and keeps the process's clock, metrics and attempts."""

    def __init__(self, settings: ProcessSettings) -> None:
        import ray

        # The id of the process, not the actor's: after a restart the clock starts from 0 again.
        self._worker = ray.get_runtime_context().get_worker_id()
        self.clock = Clock()
        self._metrics = WorkerMetrics(settings.tags)
        self._attempts = settings.attempts

    def computing(self, task: Task) -> Clock:
        """Count an attempt; the clock to compute under."""
        self._attempts.start(task.name)
        return self.clock

    def row(
        self, task: Task, result: str | GmpAtlError, *, found: bool = False
    ) -> dict[str, object]:
        """The row that goes to the driver. The task is finished; ``found``: nothing was computed."""
        self._attempts.finish(task.name)
        work_done()
        failed = isinstance(result, GmpAtlError)
        busy_s, alive_s = self.clock.busy_s, self.clock.alive_s
        if not failed:
            self._metrics.show(busy_s, alive_s)
        return {
            "name": task.name,
            "result": "" if failed else result,
            "worker": self._worker,
            "busy_s": busy_s,
            "alive_s": alive_s,
            "found": found,
            "error": pickle.dumps(result) if failed else b"",
        }


def _attempt(what: str, f: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | GmpAtlError:
    """What ``f`` returns, or the error that it raises. A foreign error becomes a WorkerError.

    Errors are returned as values, because Ray would log them at length and change their type.
    """
    try:
        return f(*args, **kwargs)
    except GmpAtlError as e:
        return e
    except Exception as e:
        if is_out_of_memory(e):
            return WorkerError(full_memory_message(what, e))
        return WorkerError(
            f"{what}: {type(e).__name__}: {e}; this error is unexpected, so report it with the "
            f"traceback:\n{traceback.format_exc()}"
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
    """The bytes in place, in shared memory. A scalar of pyarrow would be a copy."""
    (array,) = [chunk for chunk in column.chunks if len(chunk)]
    _, offsets, data = array.buffers()
    start, end = memoryview(offsets).cast("q")[array.offset : array.offset + 2]
    return data.slice(start, end - start)
