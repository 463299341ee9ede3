"""Trained stages: each has a recipe, which the one training loop runs on a gang of workers."""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from gmp_atl_dist import runtime, stopping
from gmp_atl_dist.errors import WorkerError
from gmp_atl_dist.stages.base import Context, Seal, Stage, sealed
from gmp_atl_dist.stages.frontend import frontend_of
from gmp_atl_dist.stages.progress import Pace
from gmp_atl_dist.store.progress import ProgressSnapshot, forget_progress, read_progress
from gmp_atl_dist.store.writer import ArtifactWriter

if TYPE_CHECKING:
    from gmp_atl_dist.training.alive import StallWatch
    from gmp_atl_dist.training.loop import TrainJob
    from gmp_atl_dist.training.recipe import Recipe

_POLL_S = 1.0
_SIGN_POLL_S = 10.0
_SAVING = "saving a checkpoint"
_SAVING_IF_ANY = "saving a checkpoint, if an update was taken"
_PATIENCE_S = 300.0
"""How long a gang that restarts, waits for room or hangs may take to save and stop."""


class TrainedStage(Stage):
    """A stage whose result is trained by gradient descent."""

    # 2: curves have the learning rate, and those of retrain the loss per scale. A frozen convolutional
    # encoder computes one clip at a time, which changes the last bit.
    version: ClassVar[int] = 2

    @property
    def starts_from(self) -> str:
        """The input that holds the backbone which is trained further."""
        return "backbone"

    @abstractmethod
    def recipe(self) -> Recipe:
        """The model, data and losses of the training, from the sealed inputs."""

    def run(self, context: Context, out: ArtifactWriter) -> Seal:
        from gmp_atl_dist.training.alive import StallWatch
        from gmp_atl_dist.training.loop import TrainJob, run_training
        from gmp_atl_dist.training.mlflow_log import check_mlflow

        workers = context.settings.train
        if workers.mlflow_uri is not None:
            check_mlflow()  # before the cluster is used
        recipe = self.recipe()
        start = sealed(self.inputs()[self.starts_from])
        # Every rank checks what it reads. A gang that meets damage would be started several times for it.
        start.read_files()
        context.connection.open()
        frontend = frontend_of(context, self.label, recipe, start)
        job = TrainJob(recipe, context.store, out.key, workers, frontend, context.tags(self))
        job.checkpoints.withdraw_stop()
        job.checkpoints.withdraw_failure()
        job.checkpoints.withdraw_alive()
        forget_progress(
            context.store, out.key
        )  # the pace of an earlier attempt is not that of this one
        newest = next(iter(job.checkpoints.sealed()), None)
        if newest is not None:
            context.reporter.line(f"{self.label}: resumes after update {newest.step}")
        leaving = _Leaving(self, context, job)
        stall = StallWatch(self.label, context.settings.stalled_after_s)

        def while_waiting() -> None:
            leaving.look()
            stall.check()

        with stopping.deferred(_SAVING_IF_ANY), _Watcher(context, self, leaving, job, stall):
            runtime.train(
                run_training,
                job,
                name=out.key.fingerprint,
                store=context.store,
                config=workers,
                tags=context.tags(self),
                while_waiting=while_waiting,
            )
        if "parts/curves.parquet" not in out.done():
            leaving.check()
            if (failure := job.checkpoints.failure()) is not None:
                raise WorkerError(failure)
        job.checkpoints.forget()
        context.store.delete(f"{out.key.prefix}/candidates")
        forget_progress(context.store, out.key)
        return Seal()


class _Leaving:
    """Has the gang save a checkpoint and stop, once the command is asked to stop.

    The request goes through the store, because the workers may be on other machines.
    """

    def __init__(self, stage: Stage, context: Context, job: TrainJob) -> None:
        self._stage = stage
        self._context = context
        self._job = job
        self._asked_s: float | None = None
        self._newest_before: int | None = None
        self.progress: ProgressSnapshot | None = None
        """The newest that this attempt has written; None before its first update."""

    def look(self) -> None:
        """To be called now and then while the gang works.

        Raises:
            StoppedError: a stop was requested, and there is nothing to wait for.
        """
        if stopping.requested() is None:
            # After an update there is something to lose.
            stopping.say_what_is_done(_SAVING if self.progress else _SAVING_IF_ANY)
            return
        now_s = time.monotonic()
        if self._asked_s is None:
            self._asked_s = now_s
            # The watcher's look may have been before the first update.
            self.progress = read_progress(self._context.store, self._stage.key) or self.progress
            self._newest_before = self._newest()
            self._job.checkpoints.request_stop()
            if self.progress is None:
                self.check()
        if now_s - self._asked_s > _PATIENCE_S:
            self.check()

    def check(self) -> None:
        """Raise the error of the stop, if one was requested."""
        signum = stopping.requested()
        if signum is not None:
            raise stopping.stopped(signum, f"{self._stage.label}: {self._saved()}")

    def _saved(self) -> str:
        newest = self._newest()
        if newest is None:
            return "no update was taken yet, so there is no checkpoint to save"
        if newest == self._newest_before:
            return f"nothing new to save; the newest checkpoint is of update {newest}"
        total = "" if self.progress is None else f" of {self.progress.total}"
        return f"saved a checkpoint after update {newest}{total}"

    def _newest(self) -> int | None:
        return next((record.step for record in self._job.checkpoints.sealed()), None)


class _Watcher:
    """Shows the progress that rank 0 writes into the store, for ``gmp-atl status`` as well."""

    def __init__(
        self, context: Context, stage: Stage, leaving: _Leaving, job: TrainJob, stall: StallWatch
    ) -> None:
        self._context = context
        self._stage = stage
        self._leaving = leaving
        self._job = job
        self._stall = stall
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
            looked_s = float("-inf")
            while not self._stop.wait(_POLL_S):
                if time.monotonic() - looked_s >= _SIGN_POLL_S:
                    self._stall.see("sign", self._job.checkpoints.alive())
                    looked_s = time.monotonic()
                snapshot = read_progress(self._context.store, self._stage.key)
                self._stall.see("updates", None if snapshot is None else snapshot.done)
                self._leaving.progress = snapshot
                if snapshot is not None:
                    # From the pace since this driver first saw the training.
                    self._pace = self._pace or Pace(snapshot.done)
                    bar.update(
                        snapshot.done,
                        snapshot.total,
                        snapshot.unit,
                        ends_in_s=self._pace.ends_in_s(snapshot.done, snapshot.total),
                        measures=snapshot.measures(),
                    )
