"""Tasks on pools of workers (Ray Data): ``map_tasks``, and ``stream_tasks``, which reads ahead."""

from __future__ import annotations

import logging
import pickle
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

from gmp_atl_dist.config import RuntimeConfig, StreamWorkersConfig, WorkersConfig
from gmp_atl_dist.errors import WorkerError
from gmp_atl_dist.runtime.attempts import TaskAttempts
from gmp_atl_dist.runtime.metrics import StageMetrics
from gmp_atl_dist.runtime.ray_errors import short_message
from gmp_atl_dist.runtime.room import await_room, demand_of
from gmp_atl_dist.runtime.work import (
    FindStored,
    StreamWorker,
    Task,
    TaskReader,
    TaskResult,
    TaskWorker,
)
from gmp_atl_dist.runtime.worker_processes import (
    ComputeProcess,
    MapProcess,
    ProcessSettings,
    ReadProcess,
)
from gmp_atl_dist.tags import Tags

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data

ArgumentT = TypeVar("ArgumentT")

_NO_TAGS = Tags()
_STALLED_AFTER_S = RuntimeConfig().stalled_after_s
_AT_ONCE = 3
"""Tasks in a computing process: one is computed, one is stored, and one has been read already."""


def map_tasks(
    tasks: Sequence[Task],
    worker: Callable[[ArgumentT], TaskWorker],
    argument: ArgumentT,
    *,
    workers: WorkersConfig,
    retries: int,
    tags: Tags = _NO_TAGS,
    stalled_after_s: float = _STALLED_AFTER_S,
    stored: FindStored | None = None,
) -> Iterator[TaskResult]:
    """Run every task on a pool of workers and yield the results, in the order in which they finish.

    A worker that dies is replaced, and its task is tried again, at most ``retries`` times. A
    :class:`StoringWorker` stores a result while it computes the next task. ``tags`` are the tags of the
    metrics. ``stored`` is asked before each task is computed: another run may have stored its result
    meanwhile, or this one before Ray lost what it knew of it with a node.

    Raises:
        GmpAtlError: raised by the worker's own code, unchanged.
        WorkerError: workers kept dying; the message names the unfinished tasks. Or no node offers what
            a worker asks for. Or nothing was finished for ``stalled_after_s``.
    """
    if not tasks:
        return
    await_room(demand_of(workers), tags.label or "map_tasks")
    dataset, attempts = _as_rows(tasks, stalled_after_s), TaskAttempts()
    process = ProcessSettings(workers.cpus, tags, attempts, workers.gpus, stored)
    # One task is computed and one is stored.
    threads = 2 if hasattr(worker, "begin") else 1
    with warnings.catch_warnings():
        # The named parameters do not cover actor restarts, which are infinite by default.
        warnings.simplefilter("ignore")
        dataset = dataset.map(
            MapProcess,  # pyright: ignore[reportArgumentType]  (callable classes are documented)
            fn_constructor_args=(worker, argument, process),
            compute=_pool(
                workers.min_workers, workers.max_workers, len(tasks), threads + 1, threads=threads
            ),
            num_cpus=workers.cpus,
            num_gpus=workers.gpus,
            resources=workers.resources,
            max_restarts=retries,
            max_task_retries=retries,
        )
    yield from _results(dataset, tasks, attempts, tags)


def stream_tasks(
    tasks: Sequence[Task],
    reader: Callable[[], TaskReader],
    worker: Callable[[ArgumentT], StreamWorker],
    argument: ArgumentT,
    *,
    workers: StreamWorkersConfig,
    retries: int,
    tags: Tags = _NO_TAGS,
    stalled_after_s: float = _STALLED_AFTER_S,
    stored: FindStored | None = None,
) -> Iterator[TaskResult]:
    """Read the tasks' tables in one pool of processes and compute in another.

    Readers work ahead until their tables fill their share of Ray's object store. A computing process
    holds the next task's table while it computes, and stores the previous result in the background, so
    that it does not wait for either. A process that dies is replaced; its tasks are read and computed
    again, at most ``retries`` times. ``stored`` is asked before a task is read, and again before it is
    computed; see :func:`map_tasks`.

    Raises:
        GmpAtlError: raised by the reader's or the worker's own code, unchanged.
        WorkerError: processes kept dying; the message names the unfinished tasks. Or nothing was read and
            nothing computed for ``stalled_after_s``.
    """
    if not tasks:
        return
    readers = number_of_readers(workers)
    what = tags.label or "stream_tasks"
    await_room({"CPU": workers.reader_cpus, **workers.reader_resources}, f"{what}, reading")
    await_room(demand_of(workers), what)
    dataset, attempts = _as_rows(tasks, stalled_after_s), TaskAttempts()
    process = ProcessSettings(workers.cpus, tags, attempts, workers.gpus, stored)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dataset.map_batches(
            ReadProcess,  # pyright: ignore[reportArgumentType]
            fn_constructor_args=(reader, ProcessSettings(1, tags, attempts, stored=stored)),
            batch_size=None,
            batch_format="pyarrow",
            # Readers without cores of their own can all start. Others start as far as cores are free.
            compute=_pool(1 if workers.reader_cpus else readers, readers, len(tasks), 2),
            num_cpus=workers.reader_cpus,
            resources=workers.reader_resources,
            max_restarts=retries,
            max_task_retries=retries,
        ).map_batches(
            ComputeProcess,  # pyright: ignore[reportArgumentType]
            fn_constructor_args=(worker, argument, process),
            # A block is one row. Ray Data refuses batch_size=None for workers with GPUs.
            batch_size=1,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=_pool(
                workers.min_workers, workers.max_workers, len(tasks), _AT_ONCE, threads=_AT_ONCE
            ),
            num_cpus=workers.cpus,
            num_gpus=workers.gpus,
            resources=workers.resources,
            max_restarts=retries,
            max_task_retries=retries,
        )
    yield from _results(dataset, tasks, attempts, tags)


def number_of_readers(workers: StreamWorkersConfig) -> int:
    """Processes that read for these workers, where nothing was measured.

    One reader feeds many CPU workers. A worker with a GPU is faster than two readers.
    """
    return workers.readers or (2 * workers.max_workers if workers.gpus else 1)


def _as_rows(tasks: Sequence[Task], stalled_after_s: float) -> ray.data.Dataset:
    """One block per task, so that each task is scheduled, retried and reported by itself."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    # The dataset takes a copy. Ray's own limit is 30 minutes, which a large part on a few cores may take.
    context.execution_no_progress_timeout_s = stalled_after_s
    # Workers are added only when all present ones are busy.
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    rows = [{"name": task.name, "payload": task.payload} for task in tasks]
    return ray.data.from_items(rows, override_num_blocks=len(rows))


def _pool(
    least: int, most: int, tasks: int, in_flight: int, threads: int = 1
) -> ray.data.ActorPoolStrategy:
    import ray.data

    return ray.data.ActorPoolStrategy(
        min_size=min(least, tasks),
        max_size=min(most, tasks),
        max_tasks_in_flight_per_actor=in_flight,
        max_concurrent_calls_per_actor=threads,
        enable_true_multi_threading=threads > 1,
    )


def _results(
    dataset: ray.data.Dataset, tasks: Sequence[Task], attempts: TaskAttempts, tags: Tags
) -> Iterator[TaskResult]:
    import ray.exceptions
    from ray.data.exceptions import ExecutionTimeoutError

    unfinished = {task.name for task in tasks}
    metrics = StageMetrics(tags)
    metrics.plan(len(tasks))
    try:
        # Without prefetching: with it, a result would be held back until the next one is there.
        for rows in dataset.iter_batches(
            batch_size=None, batch_format="pyarrow", prefetch_batches=0
        ):
            for row in cast("pa.Table", rows).to_pylist():
                if error := row.pop("error"):
                    raise pickle.loads(error)
                unfinished.discard(row["name"])
                metrics.finish("" if row["found"] else row["result"])
                yield TaskResult(**row)
        if unfinished:
            raise WorkerError(
                f"Ray Data ended without a result of {_some(sorted(unfinished))}; run again, and report it"
            )
    except ExecutionTimeoutError as e:
        waited_s = dataset.context.execution_no_progress_timeout_s
        raise _stalled_error(tags.label or "tasks", waited_s, unfinished, attempts) from e
    except ray.exceptions.RayError as e:
        raise _worker_error(e, unfinished, attempts) from e
    finally:
        metrics.close()
        attempts.clear()


def _worker_error(error: Exception, unfinished: set[str], attempts: TaskAttempts) -> WorkerError:
    count, names = attempts.most_started() or (0, [])
    suspects = f"started {count} times and never finished: {_some(names)}; " if count else ""
    return WorkerError(
        f"workers kept failing ({short_message(error)}); {suspects}"
        f"not finished: {_some(sorted(unfinished))}; look at the workers' output in the log, give them "
        f"more memory, or raise runtime.task_retries"
    )


def _stalled_error(
    what: str, waited_s: float, unfinished: set[str], attempts: TaskAttempts
) -> WorkerError:
    """A worker that hangs, or one that never started: the counts of started tasks tell which."""
    started = attempts.most_started()
    if started is None:
        why = (
            "Ray's head did not say which parts were started: check that its node runs and answers, then "
            "look at the workers' output"
        )
    elif started[0]:
        why = (
            f"started and not finished: {_some(started[1])}; a worker hangs, or its node cannot be reached: "
            f"look at the workers' output, and end a process that does not go on"
        )
    else:
        why = "none of them was started: check that the nodes run and are not held by other work"
    return WorkerError(
        f"{what}: nothing was finished for {waited_s:g} s (runtime.stalled_after_s), {len(unfinished)} parts "
        f"are left; {why}; raise the key if a part may take longer; run the same command again to continue"
    )


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:10])}{' ...' if len(names) > 10 else ''}"
