"""Running work on Ray: ``map_tasks`` and ``stream_tasks`` (Ray Data), ``open_pool`` (actors), ``train``
(Ray Train).

Ray does scheduling, retries, autoscaling and restarts. This package adds little: tasks go out as rows and
results come back; a training resumes from its newest complete checkpoint in the store; and an error that our
own code raises on a worker reaches the caller unchanged. Only ``runtime`` and ``ray_api`` import ray.
"""

from gmp_atl_dist.runtime.actor_pool import Pool, open_pool
from gmp_atl_dist.runtime.connection import RayConnection
from gmp_atl_dist.runtime.gang import train
from gmp_atl_dist.runtime.metrics import count_result
from gmp_atl_dist.runtime.nodes import cluster_nodes
from gmp_atl_dist.runtime.tasks import map_tasks, number_of_readers, stream_tasks
from gmp_atl_dist.runtime.work import (
    DeviceWork,
    FindStored,
    Gang,
    PoolWorker,
    StoringWorker,
    StreamWorker,
    Task,
    TaskReader,
    TaskResult,
    TaskWorker,
)

__all__ = [
    "DeviceWork",
    "FindStored",
    "Gang",
    "Pool",
    "PoolWorker",
    "RayConnection",
    "StoringWorker",
    "StreamWorker",
    "Task",
    "TaskReader",
    "TaskResult",
    "TaskWorker",
    "cluster_nodes",
    "count_result",
    "map_tasks",
    "number_of_readers",
    "open_pool",
    "stream_tasks",
    "train",
]
