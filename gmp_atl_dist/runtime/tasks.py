"""Tasks on pools of workers (Ray Data): ``map_tasks``, and ``stream_tasks`` that reads ahead."""

from __future__ import annotations

import logging
import pickle
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

from gmp_atl_dist.config import StreamWorkersConfig, WorkersConfig
from gmp_atl_dist.errors import WorkerError
from gmp_atl_dist.runtime.attempts import Attempts
from gmp_atl_dist.runtime.metrics import StageMetrics
from gmp_atl_dist.runtime.ray_errors import short_message
from gmp_atl_dist.runtime.work import StreamWorker, Task, TaskReader, TaskResult, TaskWorker
from gmp_atl_dist.runtime.worker_processes import Computer, Mapper, Reader, Setting
from gmp_atl_dist.tags import Tags

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data

ArgumentT = TypeVar("ArgumentT")

_NO_TAGS = Tags()
_AT_ONCE = 3
"""Tasks in a computing process: one computes, one is put, and one has its audio there already."""


def map_tasks(
    tasks: Sequence[Task],
    worker: Callable[[ArgumentT], TaskWorker],
    argument: ArgumentT,
    *,
    workers: WorkersConfig,
    retries: int,
    tags: Tags = _NO_TAGS,
) -> Iterator[TaskResult]:
    """Run every task on a pool of workers and yield what they return, in the order they finish.

    A worker that dies is replaced and its task tried again, ``retries`` times at most. ``tags``
    are those of the metrics.

    Raises:
        GmpAtlError: raised by the worker's own code, as it was.
        WorkerError: workers kept dying; names the tasks left undone.
    """
    if not tasks:
        return
    dataset, begun = _as_rows(tasks), Attempts()
    with warnings.catch_warnings():
        # The named parameters do not cover actor restarts, which are infinite by default.
        warnings.simplefilter("ignore")
        dataset = dataset.map(
            Mapper,  # pyright: ignore[reportArgumentType]  (callable classes are documented)
            fn_constructor_args=(worker, argument, Setting(workers.cpus, tags, begun)),
            compute=_pool(workers.min_workers, workers.max_workers, len(tasks), 2),
            num_cpus=workers.cpus,
            num_gpus=workers.gpus,
            resources=workers.resources,
            max_restarts=retries,
            max_task_retries=retries,
        )
    yield from _results(dataset, tasks, begun, tags)


def stream_tasks(
    tasks: Sequence[Task],
    reader: Callable[[], TaskReader],
    worker: Callable[[ArgumentT], StreamWorker],
    argument: ArgumentT,
    *,
    workers: StreamWorkersConfig,
    retries: int,
    tags: Tags = _NO_TAGS,
) -> Iterator[TaskResult]:
    """Read tasks' tables on one pool of processes and compute on another, which never waits for them.

    Readers go ahead until Ray's object store holds its share of tables. A computing process has one
    task's table beside the one that it computes on, and puts the one before in the background. A
    process that dies is replaced; its tasks are read and computed again, ``retries`` times at most.

    Raises:
        GmpAtlError: raised by the reader's or the worker's own code, as it was.
        WorkerError: processes kept dying; names the tasks left undone.
    """
    if not tasks:
        return
    # One reads for many processors; a GPU is faster than two of them.
    readers = workers.readers or (2 * workers.max_workers if workers.gpus else 1)
    dataset, begun = _as_rows(tasks), Attempts()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dataset.map_batches(
            Reader,  # pyright: ignore[reportArgumentType]
            fn_constructor_args=(reader, Setting(1, tags, begun)),
            batch_size=None,
            batch_format="pyarrow",
            # Where readers take no cores all of them can start; else what is left for them decides.
            compute=_pool(1 if workers.reader_cpus else readers, readers, len(tasks), 2),
            num_cpus=workers.reader_cpus,
            resources=workers.reader_resources,
            max_restarts=retries,
            max_task_retries=retries,
        ).map_batches(
            Computer,  # pyright: ignore[reportArgumentType]
            fn_constructor_args=(worker, argument, Setting(workers.cpus, tags, begun)),
            # A block is a row. "All of it" is refused by Ray Data where there are GPUs.
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
    yield from _results(dataset, tasks, begun, tags)


def _as_rows(tasks: Sequence[Task]) -> ray.data.Dataset:
    """One block a task, so that each is scheduled, retried and reported by itself."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    # Workers are added once all that there are have their hands full.
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
    dataset: ray.data.Dataset, tasks: Sequence[Task], begun: Attempts, tags: Tags
) -> Iterator[TaskResult]:
    import ray.exceptions

    undone = {task.name for task in tasks}
    metrics = StageMetrics(tags)
    metrics.plan(len(tasks))
    try:
        # Nothing is fetched ahead, because a result would wait for the next one.
        for rows in dataset.iter_batches(
            batch_size=None, batch_format="pyarrow", prefetch_batches=0
        ):
            for row in cast("pa.Table", rows).to_pylist():
                if error := row.pop("error"):
                    raise pickle.loads(error)
                undone.discard(row["name"])
                metrics.done(row["result"])
                yield TaskResult(**row)
        if undone:
            raise WorkerError(
                f"Ray Data ended without {_some(sorted(undone))}; run again, and report it"
            )
    except ray.exceptions.RayError as e:
        raise _given_up(e, undone, begun) from e
    finally:
        metrics.close()
        begun.forget()


def _given_up(error: Exception, undone: set[str], begun: Attempts) -> WorkerError:
    times, suspects = begun.most_attempted()
    found = f"begun most often, {times} times, and never done: {_some(suspects)}; " if times else ""
    return WorkerError(
        f"workers failed for good ({short_message(error)}); {found}not done: {_some(sorted(undone))}; "
        f"look at the workers' logs, give them more memory, or raise runtime.task_retries"
    )


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:10])}{' ...' if len(names) > 10 else ''}"
