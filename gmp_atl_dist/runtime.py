"""The only place that talks to Ray: ``map_tasks`` (Ray Data) and ``train`` (Ray Train).

Scheduling, retries, autoscaling and restarts are Ray's. What we add is small: tasks are rows and
receipts come back; a gang resumes from its newest complete checkpoint in the store; and an error
raised by our own code on a worker reaches the caller as what it was.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from gmp_atl_dist.config import RuntimeConfig, TrainWorkersConfig, WorkersConfig
from gmp_atl_dist.errors import CheckpointError, GmpAtlError, WorkerError
from gmp_atl_dist.store.filesystem import Store

if TYPE_CHECKING:
    import ray.train

ArgumentT = TypeVar("ArgumentT")
ContraArgumentT = TypeVar("ContraArgumentT", contravariant=True)

_OBJECT_STORE_BYTES = 512 << 20
_LOCAL_POLL_S = "0.25"
_RECORD = "checkpoint_manager_snapshot.json"
_CHATTY = (
    "ray.train.v2._internal.execution.controller.placement_group_cleaner",
    "ray.train.v2._internal.execution.context",
)


@dataclass(frozen=True)
class Task:
    """One piece of work: a name that is its identity, and what it needs to know, as JSON."""

    name: str
    payload: str = ""


class TaskWorker(Protocol):
    """Made once a process; called once a task. Returns JSON, a receipt as a rule."""

    def __call__(self, task: Task) -> str: ...


class Gang(Protocol):
    """What one of several training processes may ask of the cluster."""

    rank: int
    world_size: int

    def restored(self) -> Path | None: ...

    def save(self, metrics: dict[str, float], write: Callable[[Path], None]) -> None: ...


class Cluster:
    """A connection to Ray, made when the first stage needs it and closed at the end of the run.

    It is the configured cluster, RAY_ADDRESS, or a Ray of our own on this machine. One that was
    started here is stopped at the end; a cluster that was there stays as it is.
    """

    def __init__(self, config: RuntimeConfig) -> None:
        self._config = config
        self._opened = False

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        if self._opened:
            import ray

            ray.shutdown()
            self._opened = False

    def open(self) -> None:
        """Connect unless connected.

        Raises:
            WorkerError: there is no Ray at the address.
        """
        import ray

        if ray.is_initialized():
            return
        address = self._config.ray_address or os.environ.get("RAY_ADDRESS")
        logging.getLogger("ray").setLevel(logging.ERROR)
        set_up = {"worker_process_setup_hook": _set_up_process}
        try:
            if address:
                ray.init(address=address, logging_level=logging.ERROR, runtime_env=set_up)
            else:
                # Every report waits for the controller's next look, 2 s apart unless told.
                os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", _LOCAL_POLL_S)
                # "local", because without an address Ray joins whatever cluster runs here already.
                ray.init(
                    address="local",
                    include_dashboard=False,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    logging_level=logging.ERROR,
                    runtime_env=set_up,
                )
        except (ConnectionError, RuntimeError) as e:
            raise WorkerError(
                f"cannot reach Ray at {address or 'this machine'}: {e}; check runtime.ray_address "
                f"or RAY_ADDRESS, and that the cluster is up"
            ) from e
        self._opened = True


def map_tasks(
    tasks: Sequence[Task],
    worker: Callable[[ArgumentT], TaskWorker],
    argument: ArgumentT,
    *,
    workers: WorkersConfig,
    retries: int,
) -> Iterator[str]:
    """Run every task on a pool of workers and yield what they return, in the order they finish.

    A worker that dies is replaced and its task tried again, ``retries`` times at most.

    Raises:
        GmpAtlError: raised by the worker's own code, as it was.
        WorkerError: workers kept dying; names the tasks left undone.
    """
    if not tasks:
        return
    import ray
    import ray.data
    import ray.exceptions

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    undone = {task.name for task in tasks}
    rows = [{"name": task.name, "payload": task.payload} for task in tasks]
    size = min(workers.workers, len(tasks))
    with warnings.catch_warnings():
        # The named parameters do not cover actor restarts, which are infinite by default.
        warnings.simplefilter("ignore")
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _RowWorker,  # pyright: ignore[reportArgumentType]  (callable classes are documented)
            fn_constructor_kwargs={
                "worker": worker,
                "argument": argument,
                "threads": workers.cpus,
            },
            compute=ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=2),
            num_cpus=workers.cpus,
            num_gpus=workers.gpus,
            max_restarts=retries,
            max_task_retries=retries,
        )
    try:
        for row in dataset.iter_rows():
            undone.discard(row["name"])
            yield row["result"]
    except GmpAtlError:
        raise
    except Exception as e:
        ours = _our_error(e)
        if ours is not None:
            raise ours from None
        if isinstance(e, ray.exceptions.RayError):
            names = sorted(undone)
            raise WorkerError(
                f"workers failed for good ({type(e).__name__}: {_last_line(e)}); not done: "
                f"{', '.join(names[:10])}{' ...' if len(names) > 10 else ''}; look at the workers' "
                f"logs, give them more memory, or raise runtime.task_retries"
            ) from e
        raise


class _RowWorker:
    """Ray Data's side of a task worker: rows in, rows out, threads pinned."""

    def __init__(
        self, worker: Callable[[ArgumentT], TaskWorker], argument: ArgumentT, threads: int
    ) -> None:
        from gmp_atl_dist.device import pin_threads

        pin_threads(threads)
        self._worker = worker(argument)

    def __call__(self, row: dict[str, str]) -> dict[str, str]:
        result = self._worker(Task(row["name"], row["payload"]))
        return {"name": row["name"], "result": result}


def train(
    loop: Callable[[ArgumentT, Gang], None],
    argument: ArgumentT,
    *,
    name: str,
    store: Store,
    config: TrainWorkersConfig,
) -> None:
    """Run ``loop(argument, gang)`` on a gang of workers until it returns on all of them.

    Checkpoints lie in ``checkpoints/{name}`` of the store; with the same name, a run that was
    stopped continues from its newest complete one.

    Raises:
        GmpAtlError: raised by the loop, as it was.
        WorkerError: workers died more often than ``config.max_failures``.
    """
    import ray.train
    import ray.train.torch
    from ray.train.v2.api.exceptions import TrainingFailedError

    _check_record(store, name)
    trainer = ray.train.torch.TorchTrainer(
        _gang_loop,
        train_loop_config={"loop": loop, "argument": argument, "threads": config.cpus},
        torch_config=ray.train.torch.TorchConfig(backend="nccl" if config.gpus else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.workers,
            use_gpu=config.gpus > 0,
            resources_per_worker={"CPU": config.cpus}
            | ({"GPU": config.gpus} if config.gpus else {}),
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=store.absolute("checkpoints"),
            storage_filesystem=store.filesystem,
            failure_config=ray.train.FailureConfig(max_failures=config.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as e:
        ours = _our_error(e)
        if ours is not None:
            raise ours from None
        raise WorkerError(
            f"training {name[:12]} failed for good ({_last_line(e)}); its checkpoints are kept, so "
            f"run again to continue; runtime.train.max_failures = {config.max_failures}"
        ) from e


def _check_record(store: Store, name: str) -> None:
    """Ray rewrites its record of checkpoints in place; on a folder a kill can cut it short."""
    path = f"checkpoints/{name}/{_RECORD}"
    if not store.exists(path):
        return
    try:
        json.loads(store.read(path))
    except ValueError as e:
        raise CheckpointError(
            f"{store.uri}/{path} was cut short when a run was killed ({e}); delete "
            f"checkpoints/{name} to train this stage from its beginning"
        ) from None


def forget_checkpoints(store: Store, name: str) -> None:
    """Remove a finished training's checkpoints; its artefact holds what lasts."""
    store.delete(f"checkpoints/{name}")


def _set_up_process() -> None:
    """Runs in every process that Ray starts for us.

    Ray Train's cleaner asks the cluster's dashboard every second whether its controller lives. Where
    two Rays share a machine it must be told which is its own; where there is no dashboard, which
    costs 1 GB and is left out of a Ray of our own, it would warn each time.
    """
    import ray

    os.environ.setdefault("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)


def _gang_loop(config: dict[str, object]) -> None:
    from gmp_atl_dist.device import pin_threads

    threads, loop = config["threads"], config["loop"]
    if not isinstance(threads, int) or not callable(loop):
        raise TypeError(f"a gang needs a loop and a number of threads, got {loop!r}, {threads!r}")
    pin_threads(threads)
    with tempfile.TemporaryDirectory(prefix="gmp-atl-") as folder:
        loop(config["argument"], _RayGang(Path(folder)))


class _RayGang:
    """Ray Train's context behind our own three words."""

    def __init__(self, folder: Path) -> None:
        import ray.train

        context = ray.train.get_context()
        self.rank = context.get_world_rank()
        self.world_size = context.get_world_size()
        self._folder = folder

    def restored(self) -> Path | None:
        """The newest complete checkpoint, fetched into a folder of this process."""
        import ray.train

        checkpoint: ray.train.Checkpoint | None = ray.train.get_checkpoint()
        if checkpoint is None:
            return None
        return Path(checkpoint.to_directory(str(self._folder / "restored")))

    def save(self, metrics: dict[str, float], write: Callable[[Path], None]) -> None:
        """Every rank writes its share into a folder; Ray merges them and records the whole last."""
        import ray.train

        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            write(Path(folder))
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _our_error(error: BaseException) -> GmpAtlError | None:
    """The error of ours inside what Ray wrapped around it."""
    queue: list[object] = [error]
    seen: set[int] = set()
    while queue:
        e = queue.pop(0)
        if not isinstance(e, BaseException) or id(e) in seen:
            continue
        seen.add(id(e))
        if isinstance(e, GmpAtlError):
            # Ray's wrapper may be a class made on the spot that inherits from ours.
            cause = getattr(e, "cause", e)
            return cause if isinstance(cause, GmpAtlError) else e
        queue += [getattr(e, "cause", None), e.__cause__, e.__context__]
        queue += list(getattr(e, "worker_failures", {}).values())
    return None


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
