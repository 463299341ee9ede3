"""Tasks and their results, and the protocols of workers and of a gang."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

import pyarrow as pa

RequestT_contra = TypeVar("RequestT_contra", contravariant=True)
AnswerT_co = TypeVar("AnswerT_co", covariant=True)


@dataclass(frozen=True)
class Task:
    """One piece of work: a unique name, and its parameters as JSON.

    ``cost`` is its share of the work relative to other tasks; only the driver's progress uses it.
    """

    name: str
    payload: str = ""
    cost: float = 1.0


@dataclass(frozen=True)
class TaskResult:
    """The result of a task, and how busy its process has been.

    ``worker`` is the id of the process, ``busy_s`` the time that it has computed so far, and ``alive_s``
    the time since the start of its first task. ``read_s`` is the time that a reader took for this task, 0
    without one. ``found``: the result was stored when the turn of the task came, so nothing was computed.
    """

    name: str
    result: str
    worker: str
    busy_s: float
    alive_s: float
    read_s: float = 0.0
    found: bool = False


FindStored: TypeAlias = Callable[[Task], str | None]
"""The result of a task if it is stored already, by any process; None if it must be computed."""


class TaskWorker(Protocol):
    """Made once per process and called once per task. Returns JSON: a list of receipts."""

    def __call__(self, task: Task) -> str: ...


@runtime_checkable
class StoringWorker(TaskWorker, Protocol):
    """A worker of ``map_tasks`` that computes the next task while the result of the last one is stored.

    A process computes one task at a time. The function that ``begin`` returns stores its result and
    returns JSON; it runs in another thread. A call does both, one after the other.
    """

    def begin(self, task: Task) -> Callable[[], str]: ...


class TaskReader(Protocol):
    """Made once per process; reads the table of a task."""

    def __call__(self, task: Task) -> pa.Table: ...


class StreamWorker(Protocol):
    """Made once per process, in the thread in which it computes.

    ``compute`` does the work on the device, one task at a time. It returns a function that stores the
    result (serialise, hash, put) and returns JSON: a list of receipts. That function runs in another
    thread while the next task is computed. The table lies in shared memory and must not be changed.
    """

    def compute(self, task: Task, table: pa.Table) -> Callable[[], str]: ...


@dataclass(frozen=True)
class DeviceWork:
    """What ``StreamWorker.compute`` may return where a device still works on the task.

    ``wait`` returns when that work is done; the time until then counts as computing. A call stores the
    result, as the function does that ``compute`` returns otherwise.
    """

    wait: Callable[[], object]
    put: Callable[[], str]

    def __call__(self) -> str:
        return self.put()


class PoolWorker(Protocol[RequestT_contra, AnswerT_co]):
    """Made once per process; called with a task and the request for it."""

    def __call__(self, task: Task, request: RequestT_contra, /) -> AnswerT_co: ...


class Gang(Protocol):
    """One of several training processes that run in lockstep: its place, and its link to the cluster."""

    rank: int
    world_size: int
    node: int
    """The machine that this rank runs on, counted from 0."""
    node_leader: bool
    """Whether this rank fetches checkpoints for the others on its machine."""

    def report(self, step: int) -> None:
        """Report a complete checkpoint of this update. All ranks call it at the same update."""
        ...

    def preemption_pending(self) -> bool:
        """Whether a node of the gang will soon be preempted. All ranks call it at the same update."""
        ...

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Publish the state of the training in the cluster's metrics. Only the first rank calls it."""
        ...
