"""What goes to a worker, what comes back, and what a worker and a gang are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import pyarrow as pa

OrderT_contra = TypeVar("OrderT_contra", contravariant=True)
AnswerT_co = TypeVar("AnswerT_co", covariant=True)


@dataclass(frozen=True)
class Task:
    """One piece of work: a name that is its identity, and what it needs to know, as JSON.

    ``cost`` is what it takes compared with the others; only the driver's progress looks at it.
    """

    name: str
    payload: str = ""
    cost: float = 1.0


@dataclass(frozen=True)
class TaskResult:
    """What a task gave, and how busy the process was that did it.

    ``worker`` names the process; ``busy_s`` is the time that it has computed so far, and ``alive_s``
    the time since it began its first task.
    """

    name: str
    result: str
    worker: str
    busy_s: float
    alive_s: float


class TaskWorker(Protocol):
    """Made once a process; called once a task. Returns JSON: a list of receipts."""

    def __call__(self, task: Task) -> str: ...


class TaskReader(Protocol):
    """Made once a process; reads what a task needs."""

    def __call__(self, task: Task) -> pa.Table: ...


class StreamWorker(Protocol):
    """Made once a process, in the thread in which it computes.

    ``compute`` does what needs the device, one task at a time. What it returns (serialise, hash,
    put) runs in another thread while the next task computes, and returns JSON: a list of receipts.
    The table lies in shared memory and must not be written to.
    """

    def compute(self, task: Task, table: pa.Table) -> Callable[[], str]: ...


class PoolWorker(Protocol[OrderT_contra, AnswerT_co]):
    """Made once a process; called with a task and what is to be done with it."""

    def __call__(self, task: Task, order: OrderT_contra) -> AnswerT_co: ...


class Gang(Protocol):
    """One of several training processes that advance together, and what it may ask of the cluster."""

    rank: int
    world_size: int
    node: int
    """The machine that this rank runs on, counted from 0."""
    node_leader: bool
    """Whether this rank fetches checkpoints for the others on its machine."""

    def report(self, step: int) -> None:
        """A checkpoint of this update is complete. Every rank reports it at the same update."""
        ...

    def preemption_pending(self) -> bool:
        """Whether a machine of the gang will soon be taken away. Every rank asks at the same update."""
        ...

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Show the state of the training in the cluster's metrics. Only the first rank does."""
        ...
