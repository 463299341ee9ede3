"""A pool of processes that is asked again and again, and keeps what it has read in between (Ray actors).

``map_tasks`` is for work that is done once; an iterative fit asks the same tasks of the same processes
many times. Restarts and retries are Ray's. Ours is which process gets which task: the one that had it
before, as long as that one has no more to do than the others.
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
from gmp_atl_dist.runtime.work import PoolWorker, Task
from gmp_atl_dist.tags import Tags

if TYPE_CHECKING:
    import ray
    import ray.actor

ArgumentT = TypeVar("ArgumentT")
OrderT = TypeVar("OrderT")
OrderT_contra = TypeVar("OrderT_contra", contravariant=True)
AnswerT = TypeVar("AnswerT")
AnswerT_co = TypeVar("AnswerT_co", covariant=True)

_NO_TAGS = Tags()
_AT_ONCE = 2
"""Tasks that a process holds: it works on one and has the next at hand."""
_AHEAD = 4
"""For each process, tasks that may be answered before their turn; answers wait in memory."""
_POLL_S = 5.0


class Pool(Protocol[OrderT_contra, AnswerT_co]):
    """Processes that answer."""

    def ask(self, tasks: Sequence[Task], order: OrderT_contra) -> Iterator[AnswerT_co]:
        """The answer of every task, in the order of the tasks."""
        ...


@contextmanager
def open_pool(
    worker: Callable[[ArgumentT], PoolWorker[OrderT, AnswerT]],
    argument: ArgumentT,
    *,
    workers: WorkersConfig,
    most: int,
    retries: int,
    stalled_after_s: float,
    tags: Tags = _NO_TAGS,
) -> Iterator[Pool[OrderT, AnswerT]]:
    """Start processes, at most ``most`` of them, and end them afterwards.

    One that dies is started again, and its tasks are tried again, ``retries`` times at most. Processes
    past the fewest asked for come when the cluster has room.

    Raises:
        GmpAtlError: raised by the worker's own code, as it was.
        WorkerError: processes kept dying, or nothing was answered for ``stalled_after_s``.
    """
    import ray

    from gmp_atl_dist.runtime.worker_processes import PoolProcess

    count = max(1, min(workers.max_workers, most))
    actor = ray.remote(PoolProcess).options(
        num_cpus=workers.cpus,
        num_gpus=workers.gpus,
        resources=workers.resources,
        max_restarts=retries,
        max_task_retries=retries,
    )
    actors = [actor.remote(worker, argument, workers.cpus, tags) for _ in range(count)]
    metrics = StageMetrics(tags)
    try:
        handles = cast("Sequence[ray.actor.ActorHandle]", actors)
        yield _RayPool(handles, stalled_after_s, metrics)
    finally:
        metrics.close()
        for handle in actors:
            ray.kill(cast("ray.actor.ActorHandle", handle))


class _RayPool(Generic[OrderT, AnswerT]):
    def __init__(
        self,
        actors: Sequence[ray.actor.ActorHandle],
        stalled_after_s: float,
        metrics: StageMetrics,
    ) -> None:
        self._actors = actors
        self._metrics = metrics
        self._stalled_after_s = stalled_after_s
        # One for which the cluster has no room yet must not be given work.
        self._starting = {actor.ready.remote(): number for number, actor in enumerate(actors)}
        self._started: list[int] = []

    def ask(self, tasks: Sequence[Task], order: OrderT) -> Iterator[AnswerT]:
        import ray

        shared = ray.put(order)
        self._metrics.plan(len(tasks))
        turns = Turns(len(tasks), len(self._actors))
        running: dict[ray.ObjectRef, int] = {}
        answered: dict[int, AnswerT] = {}
        due, heard_s = 0, time.monotonic()
        poll_s = min(_POLL_S, self._stalled_after_s / 4)
        while due < len(tasks):
            for actor, number in turns.take(self._started, due):
                reference = self._actors[actor].answer.remote(tasks[number], shared)
                running[reference] = number
            waited_for = [*running, *self._starting]
            ready, _ = ray.wait(waited_for, num_returns=1, timeout=poll_s)
            for reference in ready:
                heard_s = time.monotonic()
                if reference in self._starting:
                    self._value(reference, "start of a worker")
                    self._started.append(self._starting.pop(reference))
                else:
                    number = running.pop(reference)
                    answered[number] = self._value(reference, tasks[number].name)
                    turns.done(number)
                    self._metrics.done()
            # What waits for a process behind a cut link does not return by itself.
            if time.monotonic() - heard_s > self._stalled_after_s:
                names = ", ".join(tasks[n].name for n in running.values()) or "a worker to start"
                raise WorkerError(
                    f"no worker has answered for {self._stalled_after_s:g} s, waiting for {names}; "
                    f"look whether the cluster has the cores that are asked for and its nodes are "
                    f"up, or raise runtime.cluster.stalled_after_s"
                )
            while due in answered:
                yield answered.pop(due)
                due += 1

    def _value(self, reference: ray.ObjectRef, what: str) -> AnswerT:
        import ray
        import ray.exceptions

        try:
            found = ray.get(reference, timeout=self._stalled_after_s)
        except ray.exceptions.RayError as e:
            ours = unwrap_error(e)
            if ours is not None:
                raise ours from None
            raise WorkerError(
                f"workers failed for good at {what} ({short_message(e)}); look at their logs, give them "
                f"more memory, or raise runtime.task_retries"
            ) from e
        if isinstance(found, GmpAtlError):
            raise found
        return found


class Turns:
    """Which process gets which task next.

    Process p of n has tasks p, p + n, p + 2n, ..., so that it gets the same ones each time and answers
    come about in order; one that has nothing to do takes over what is needed first.
    """

    def __init__(self, tasks: int, processes: int) -> None:
        self._left = [deque(range(p, tasks, processes)) for p in range(processes)]
        self._busy: dict[int, int] = {}

    def take(self, processes: Sequence[int], due: int) -> list[tuple[int, int]]:
        """(process, task) to begin now; ``due`` is the first task that has no answer yet."""
        limit = due + _AHEAD * len(self._left)
        held = Counter(self._busy.values())
        taken: list[tuple[int, int]] = []
        for process in processes:
            while held[process] < _AT_ONCE:
                number = self._next(process, limit, idle=not held[process])
                if number is None:
                    break
                self._busy[number] = process
                held[process] += 1
                taken.append((process, number))
        return taken

    def done(self, task: int) -> None:
        del self._busy[task]

    def _next(self, process: int, limit: int, idle: bool) -> int | None:
        own = self._left[process]
        if own and own[0] < limit:
            return own.popleft()
        if not idle:
            return None
        # Of others' the one that is needed first, which may be what all wait for.
        first = min((left for left in self._left if left), key=lambda left: left[0], default=None)
        return first.popleft() if first is not None and first[0] < limit else None
