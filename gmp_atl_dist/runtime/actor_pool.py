"""A pool of processes that keep what they have read between requests (Ray actors).

``map_tasks`` is for work that is done once. An iterative fit sends the same tasks to the same processes
many times. Ray does restarts and retries. This module decides which process gets which task: the process
that had it before, unless another process is idle and the task is needed next.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, cast

from gmp_atl_dist.config import WorkersConfig
from gmp_atl_dist.errors import GmpAtlError, WorkerError
from gmp_atl_dist.runtime.metrics import StageMetrics
from gmp_atl_dist.runtime.ray_errors import short_message, unwrap_error
from gmp_atl_dist.runtime.room import await_room, demand_of
from gmp_atl_dist.runtime.work import PoolWorker, Task
from gmp_atl_dist.tags import Tags

if TYPE_CHECKING:
    import ray
    import ray.actor

ArgumentT = TypeVar("ArgumentT")
RequestT = TypeVar("RequestT")
RequestT_contra = TypeVar("RequestT_contra", contravariant=True)
AnswerT = TypeVar("AnswerT")
AnswerT_co = TypeVar("AnswerT_co", covariant=True)

_NO_TAGS = Tags()
_AT_ONCE = 2
"""Tasks that a process holds: one that it works on, and the next one."""
_AHEAD = 4
"""Per process, how many tasks the schedule may be ahead; early answers wait in memory."""
_POLL_S = 5.0


class Pool(Protocol[RequestT_contra, AnswerT_co]):
    """Processes that answer requests."""

    def ask(self, tasks: Sequence[Task], request: RequestT_contra) -> Iterator[AnswerT_co]:
        """The answer to ``request`` for every task, in the order of the tasks."""
        ...


@contextmanager
def open_pool(
    worker: Callable[[ArgumentT], PoolWorker[RequestT, AnswerT]],
    argument: ArgumentT,
    *,
    workers: WorkersConfig,
    most: int,
    retries: int,
    stalled_after_s: float,
    tags: Tags = _NO_TAGS,
) -> Iterator[Pool[RequestT, AnswerT]]:
    """Start at most ``most`` processes, and end them afterwards.

    A process that dies is started again, and its tasks are tried again, at most ``retries`` times. Work
    starts as soon as one process has started; the others join when the cluster has room.

    Raises:
        GmpAtlError: raised by the worker's own code, unchanged.
        WorkerError: processes kept dying, or none answered for ``stalled_after_s``.
    """
    import ray

    from gmp_atl_dist.runtime.worker_processes import PoolProcess

    await_room(demand_of(workers), tags.label or "open_pool")
    count = max(1, min(workers.max_workers, most))
    actor = ray.remote(PoolProcess).options(
        num_cpus=workers.cpus,
        num_gpus=workers.gpus,
        resources=workers.resources,
        max_restarts=retries,
        max_task_retries=retries,
    )
    actors = [
        actor.remote(worker, argument, workers.cpus, tags, workers.gpus) for _ in range(count)
    ]
    metrics = StageMetrics(tags)
    try:
        handles = cast("Sequence[ray.actor.ActorHandle]", actors)
        yield _RayPool(handles, stalled_after_s, metrics)
    finally:
        metrics.close()
        for handle in actors:
            ray.kill(cast("ray.actor.ActorHandle", handle))


class _RayPool(Generic[RequestT, AnswerT]):
    def __init__(
        self,
        actors: Sequence[ray.actor.ActorHandle],
        stalled_after_s: float,
        metrics: StageMetrics,
    ) -> None:
        self._actors = actors
        self._metrics = metrics
        self._stalled_after_s = stalled_after_s
        # A process that the cluster has no room for yet must not be given tasks.
        self._starting = {actor.ready.remote(): number for number, actor in enumerate(actors)}
        self._started: list[int] = []

    def ask(self, tasks: Sequence[Task], request: RequestT) -> Iterator[AnswerT]:
        import ray

        shared = ray.put(request)
        self._metrics.plan(len(tasks))
        schedule = TaskSchedule(len(tasks), len(self._actors))
        running: dict[ray.ObjectRef, int] = {}
        answers: dict[int, AnswerT] = {}
        next_task, last_answer_s = 0, time.monotonic()
        poll_s = min(_POLL_S, self._stalled_after_s / 4)
        while next_task < len(tasks):
            for actor, number in schedule.assign(self._started, next_task):
                reference = self._actors[actor].answer.remote(tasks[number], shared)
                running[reference] = number
            waited_for = [*running, *self._starting]
            ready, _ = ray.wait(waited_for, num_returns=1, timeout=poll_s)
            for reference in ready:
                last_answer_s = time.monotonic()
                if reference in self._starting:
                    self._value(reference, "start of a worker")
                    self._started.append(self._starting.pop(reference))
                else:
                    number = running.pop(reference)
                    answers[number] = self._value(reference, tasks[number].name)
                    schedule.finish(number)
                    self._metrics.finish()
            # A request to a process behind a broken network link never returns by itself.
            if time.monotonic() - last_answer_s > self._stalled_after_s:
                names = ", ".join(tasks[n].name for n in running.values()) or "a worker to start"
                raise WorkerError(
                    f"no worker has answered for {self._stalled_after_s:g} s, waiting for {names}; "
                    f"check that the cluster has the requested cores and that its nodes are running, "
                    f"or raise runtime.cluster.stalled_after_s"
                )
            while next_task in answers:
                yield answers.pop(next_task)
                next_task += 1

    def _value(self, reference: ray.ObjectRef, what: str) -> AnswerT:
        import ray
        import ray.exceptions

        try:
            answer = ray.get(reference, timeout=self._stalled_after_s)
        except ray.exceptions.RayError as e:
            ours = unwrap_error(e)
            if ours is not None:
                raise ours from None
            raise WorkerError(
                f"workers kept failing at {what} ({short_message(e)}); look at their output in the log, "
                f"give them more memory, or raise runtime.task_retries"
            ) from e
        if isinstance(answer, GmpAtlError):
            raise answer
        return answer


class TaskSchedule:
    """Which process gets which task next.

    Process p of n gets the tasks p, p + n, p + 2n, ..., so that it gets the same tasks for each request,
    and answers come nearly in order. An idle process without tasks of its own takes over the task that is
    needed first.
    """

    def __init__(self, tasks: int, processes: int) -> None:
        self._left = [deque(range(p, tasks, processes)) for p in range(processes)]
        self._running: dict[int, int] = {}

    def assign(self, processes: Sequence[int], next_task: int) -> list[tuple[int, int]]:
        """Pairs (process, task) to start now. ``next_task`` is the first task without an answer."""
        limit = next_task + _AHEAD * len(self._left)
        held = Counter(self._running.values())
        assigned: list[tuple[int, int]] = []
        for process in processes:
            while held[process] < _AT_ONCE:
                number = self._next(process, limit, idle=not held[process])
                if number is None:
                    break
                self._running[number] = process
                held[process] += 1
                assigned.append((process, number))
        return assigned

    def finish(self, task: int) -> None:
        del self._running[task]

    def _next(self, process: int, limit: int, idle: bool) -> int | None:
        own = self._left[process]
        if own and own[0] < limit:
            return own.popleft()
        if not idle:
            return None
        # Of the others' tasks the one that is needed first: all processes may be waiting for it.
        first = min((left for left in self._left if left), key=lambda left: left[0], default=None)
        return first.popleft() if first is not None and first[0] < limit else None
