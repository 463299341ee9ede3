"""The only place that talks to Ray: ``map_tasks`` and ``stream_tasks`` (Ray Data), ``train`` (Ray Train).

Scheduling, retries, autoscaling and restarts are Ray's. What we add is small: tasks are rows and
receipts come back; a gang resumes from its newest complete checkpoint in the store; and an error
raised by our own code on a worker reaches the caller as what it was.
"""

from gmp_atl_dist.runtime.cluster import Cluster
from gmp_atl_dist.runtime.gang import Gang, forget_checkpoints, train
from gmp_atl_dist.runtime.metrics import amounts
from gmp_atl_dist.runtime.tasks import map_tasks, stream_tasks
from gmp_atl_dist.runtime.work import StreamWorker, Task, TaskReader, TaskResult, TaskWorker

__all__ = [
    "Cluster",
    "Gang",
    "StreamWorker",
    "Task",
    "TaskReader",
    "TaskResult",
    "TaskWorker",
    "amounts",
    "forget_checkpoints",
    "map_tasks",
    "stream_tasks",
    "train",
]
