"""Gangs of training processes (Ray Train)."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from gmp_atl_dist.config import TrainWorkersConfig
from gmp_atl_dist.errors import CheckpointError, WorkerError
from gmp_atl_dist.runtime.wrapped import last_line, our_error
from gmp_atl_dist.store.filesystem import Store

if TYPE_CHECKING:
    import ray.train

ArgumentT = TypeVar("ArgumentT")

_RECORD = "checkpoint_manager_snapshot.json"


class Gang(Protocol):
    """What one of several training processes may ask of the cluster."""

    rank: int
    world_size: int

    def restored(self) -> Path | None: ...

    def save(self, metrics: dict[str, float], write: Callable[[Path], None]) -> None: ...


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
        ours = our_error(e)
        if ours is not None:
            raise ours from None
        raise WorkerError(
            f"training {name[:12]} failed for good ({last_line(e)}); its checkpoints are kept, so "
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
