"""The only place that talks to Ray: ``map_tasks``, ``stream_tasks`` (Ray Data), ``open_pool`` (actors),
``train`` (Ray Train).

Scheduling, retries, autoscaling and restarts are Ray's. What we add is small: tasks are rows and
receipts come back; a gang resumes from its newest complete checkpoint in the store; and an error
raised by our own code on a worker reaches the caller as what it was.
"""

from gmp_atl_dist.runtime.actor_pool import Pool, open_pool
from gmp_atl_dist.runtime.connection import RayConnection
from gmp_atl_dist.runtime.gang import train
from gmp_atl_dist.runtime.metrics import count_result
from gmp_atl_dist.runtime.tasks import map_tasks, stream_tasks
from gmp_atl_dist.runtime.work import (
    Gang,
    PoolWorker,
    StreamWorker,
    Task,
    TaskReader,
    TaskResult,
    TaskWorker,
)

__all__ = [
    "Gang",
    "Pool",
    "PoolWorker",
    "RayConnection",
    "StreamWorker",
    "Task",
    "TaskReader",
    "TaskResult",
    "TaskWorker",
    "count_result",
    "map_tasks",
    "open_pool",
    "stream_tasks",
    "train",
]
