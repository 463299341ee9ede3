"""Trained stages: each has a recipe, which the one training loop runs on a gang of workers."""

from __future__ import annotations

import signal
import threading
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from gmp_atl_dist import runtime
from gmp_atl_dist.errors import StoppedError
from gmp_atl_dist.stages.base import Context, Seal, Stage, sealed
from gmp_atl_dist.stages.frontend import frontend_of
from gmp_atl_dist.stages.progress import Pace
from gmp_atl_dist.store.artifact import ArtifactWriter
from gmp_atl_dist.store.progress import ProgressSnapshot, forget_progress, read_progress

if TYPE_CHECKING:
    from gmp_atl_dist.training.loop import TrainJob
    from gmp_atl_dist.training.recipe import Recipe

_POLL_S = 1.0


class TrainedStage(Stage):
    """A stage whose result is trained by gradient descent."""

    # 2: curves have the learning rate, and those of retrain the loss per scale. A frozen convolutional
    # encoder computes one clip at a time, which changes the last bit.
    version: ClassVar[int] = 2
    starts_from: ClassVar[str] = "backbone"
    """The input that holds the backbone which is trained further."""

    @abstractmethod
    def recipe(self) -> Recipe:
        """The model, data and losses of the training, from the sealed inputs."""

    def run(self, context: Context, out: ArtifactWriter) -> Seal:
        from gmp_atl_dist.training.loop import TrainJob, run_training
        from gmp_atl_dist.training.mlflow_log import check_mlflow

        workers = context.settings.train
        if workers.mlflow_uri is not None:
            check_mlflow()  # before the cluster is used
        recipe = self.recipe()
        context.connection.open()
        start = sealed(self.inputs()[self.starts_from])
        frontend = frontend_of(context, self.label, recipe, start)
        job = TrainJob(recipe, context.store, out.key, workers, frontend, context.tags(self))
        job.checkpoints.withdraw_stop()
        forget_progress(
            context.store, out.key
        )  # the pace of an earlier attempt is not that of this one
        with _Watcher(context, self), _stop_on_sigterm(job) as requested:
            runtime.train(
                run_training,
                job,
                name=out.key.fingerprint,
                store=context.store,
                config=workers,
                tags=context.tags(self),
            )
        if requested.is_set() and "parts/curves.parquet" not in out.done():
            raise StoppedError(
                f"{self.label}: stopped on request, after saving a checkpoint; run the same command "
                f"again to resume"
            )
        job.checkpoints.forget()
        context.store.delete(f"{out.key.prefix}/candidates")
        forget_progress(context.store, out.key)
        return Seal()


@contextmanager
def _stop_on_sigterm(job: TrainJob) -> Iterator[threading.Event]:
    """On SIGTERM, write the stop request. It goes through the store, since workers may be elsewhere."""
    requested = threading.Event()

    def request_stop(*_: object) -> None:
        requested.set()
        job.checkpoints.request_stop()

    if threading.current_thread() is not threading.main_thread():
        yield requested  # only the main thread may handle signals
        return
    before = signal.signal(signal.SIGTERM, request_stop)
    try:
        yield requested
    finally:
        signal.signal(signal.SIGTERM, before)


class _Watcher:
    """Shows the progress that rank 0 writes into the store, for ``gmp-atl status`` as well."""

    def __init__(self, context: Context, stage: Stage) -> None:
        self._context = context
        self._stage = stage
        self._pace: Pace | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        with self._context.reporter.bar(self._context.tags(self._stage)) as bar:
            while not self._stop.wait(_POLL_S):
                snapshot = read_progress(self._context.store, self._stage.key)
                if snapshot is not None:
                    bar.update(snapshot.done, snapshot.total, self._with_end(snapshot).note())

    def _with_end(self, snapshot: ProgressSnapshot) -> ProgressSnapshot:
        """Adds the expected end, from the pace since this driver first saw the training."""
        self._pace = self._pace or Pace(snapshot.done)
        ends_in_s = self._pace.ends_in_s(snapshot.done, snapshot.total)
        return snapshot.model_copy(update={"ends_in_s": ends_in_s})
