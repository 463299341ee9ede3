"""Gangs of training processes (Ray Train)."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

from gmp_atl_dist.config import TrainWorkersConfig
from gmp_atl_dist.errors import WorkerError
from gmp_atl_dist.runtime.metrics import TrainingMetrics
from gmp_atl_dist.runtime.ray_errors import last_line, unwrap_error
from gmp_atl_dist.runtime.room import await_room, demand_of
from gmp_atl_dist.runtime.work import Gang
from gmp_atl_dist.runtime.worker_logs import call_log, keeping_log
from gmp_atl_dist.store.checkpoints import RAY_RUNS
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.tags import Tags

ArgumentT = TypeVar("ArgumentT")

_RESIZE_EVERY_S = 60.0
"""How often Ray checks whether there is room for more workers. A restart for them costs seconds."""
_NO_TAGS = Tags()
_WAIT_S = 0.2
_ROOM_TIMEOUT_S = "20"
"""For up to 20 s Ray still counts the resources of a lost node; by default it waits 60 s for them."""
_REPORT_TIMEOUT = "RAY_TRAIN_COLLECTIVE_TIMEOUT_S"
"""All ranks meet in Ray's report of a checkpoint. By default Ray waits there for ever."""


def train(
    loop: Callable[[ArgumentT, Gang], None],
    argument: ArgumentT,
    *,
    name: str,
    store: Store,
    config: TrainWorkersConfig,
    tags: Tags = _NO_TAGS,
    while_waiting: Callable[[], object] = lambda: None,
) -> None:
    """Run ``loop(argument, gang)`` on a gang of workers until it returns on all of them.

    When a worker or its node dies, the whole gang starts ``loop`` again, which resumes from its own
    checkpoints. With ``[min, max]`` workers, the gang is as large as the cluster has room for at its
    start, and restarts when there is room for more (Ray Train's elastic scaling). ``tags`` are the tags
    of the metrics. ``while_waiting`` is called several times a second; what it raises gives up the gang,
    which ends with the connection to Ray.

    Raises:
        GmpAtlError: raised by the loop, unchanged.
        WorkerError: workers died more often than ``config.max_failures``, or the nodes have no room for
            the gang.
    """
    import ray.train
    import ray.train.torch
    from ray import cloudpickle
    from ray.train.v2.api.exceptions import TrainingFailedError

    await_room(demand_of(config), tags.label or name, count=config.min_workers)
    num_workers: int | tuple[int, int] = config.min_workers
    if config.min_workers < config.max_workers:
        num_workers = (config.min_workers, config.max_workers)
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", _ROOM_TIMEOUT_S)
    os.environ.setdefault(_REPORT_TIMEOUT, f"{config.collective_timeout_s:g}")
    trainer = ray.train.torch.TorchTrainer(
        _gang_loop,
        train_loop_config={
            # As bytes that only workers unpickle: its imports take seconds, and Ray's controller needs
            # none of them.
            "work": cloudpickle.dumps((loop, argument)),  # pyright: ignore[reportPrivateImportUsage]
            "threads": config.cpus,
            "gpus": config.gpus,
            "tags": tags,
        },
        torch_config=ray.train.torch.TorchConfig(
            backend="nccl" if config.gpus else "gloo", timeout_s=int(config.collective_timeout_s)
        ),
        scaling_config=ray.train.ScalingConfig(
            num_workers=num_workers,
            use_gpu=config.gpus > 0,
            resources_per_worker={"CPU": config.cpus}
            | ({"GPU": config.gpus} if config.gpus else {})
            | config.resources,
            elastic_resize_monitor_interval_s=_RESIZE_EVERY_S,
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=store.absolute(RAY_RUNS),
            storage_filesystem=store.filesystem,
            failure_config=ray.train.FailureConfig(max_failures=config.max_failures),
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),
        ),
    )
    try:
        _in_a_thread(trainer.fit, while_waiting)
    except TrainingFailedError as e:
        ours = unwrap_error(e)
        if ours is not None:
            raise ours from None
        raise WorkerError(
            f"training {name[:12]} kept failing ({last_line(e)}); its checkpoints are kept: run the "
            f"same command again to continue; runtime.train.max_failures = {config.max_failures}"
        ) from e


def _in_a_thread(work: Callable[[], object], while_waiting: Callable[[], object]) -> None:
    """Run ``work`` in a thread until it is done, and raise here what it raises.

    In the main thread, Ray Train would install a handler for Ctrl-C that aborts the training and is never
    taken away again.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as e:
            raised.append(e)

    thread = threading.Thread(target=run, name="ray-train", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_WAIT_S)
        while_waiting()
    if raised:
        raise raised[0]


def _gang_loop(config: dict[str, object]) -> None:
    from ray import cloudpickle

    from gmp_atl_dist.device import pin_threads, use_gpus
    from gmp_atl_dist.gpu_state import full_memory_named

    threads, work, tags = config["threads"], config["work"], config["tags"]
    gpus = config["gpus"]
    if not isinstance(threads, int) or not isinstance(work, bytes) or not isinstance(tags, Tags):
        raise TypeError(
            f"a gang needs work, threads and tags, got {type(work).__name__}, {threads!r}, {tags!r}"
        )
    if not isinstance(gpus, int | float):
        raise TypeError(f"a gang needs the number of its GPUs, got {gpus!r}")
    use_gpus(gpus)
    pin_threads(threads)
    # The bytes come from this gang's own driver and are never stored. Ray unpickles everything else that
    # comes the same way.
    loop, argument = cloudpickle.loads(work)
    gang = _RayGang(tags)
    call_log(f"{tags.label or 'training'} rank {gang.rank}")
    with keeping_log(), full_memory_named(f"{tags.label}, worker {gang.rank}"):
        loop(argument, gang)


class _RayGang:
    """:class:`Gang` by Ray Train's context."""

    def __init__(self, tags: Tags) -> None:
        import ray.train

        context = ray.train.get_context()
        self.rank = context.get_world_rank()
        self.world_size = context.get_world_size()
        self.node = context.get_node_rank()
        self.node_leader = context.get_local_rank() == 0
        self._metrics = TrainingMetrics(tags)

    def report(self, step: int) -> None:
        import ray.train

        ray.train.report({"step": float(step)})

    def preemption_pending(self) -> bool:
        import ray.train

        # Ray drains a node before a spot instance or the autoscaler takes it away. All ranks get the same
        # answer.
        return ray.train.get_preemption_info() is not None

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        self._metrics.show(metrics)
