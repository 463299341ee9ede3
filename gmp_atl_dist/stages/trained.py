"""What the trained stages share: a recipe, run by the one loop on a gang of workers."""

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
from gmp_atl_dist.stages.progress import Pace, Snapshot, forget_progress, read_progress
from gmp_atl_dist.store.artifact import ArtifactWriter

if TYPE_CHECKING:
    from gmp_atl_dist.training.loop import TrainJob
    from gmp_atl_dist.training.recipe import Recipe

_POLL_S = 1.0


class TrainedStage(Stage):
    """A stage whose result is learnt by gradient descent."""

    # 2: curves hold the learning rate, and retrain's the loss of each scale; a frozen convolutional
    # encoder computes a clip at a time, which tells in the last bit.
    version: ClassVar[int] = 2
    begins_with: ClassVar[str] = "backbone"
    """Which of the inputs is the HuBERT that it trains."""

    @abstractmethod
    def recipe(self) -> Recipe:
        """What to train, from the sealed inputs."""

    def run(self, context: Context, out: ArtifactWriter) -> Seal:
        from gmp_atl_dist.training.loop import TrainJob, run_training
        from gmp_atl_dist.training.mlflow_log import check_mlflow

        workers = context.settings.train
        if workers.mlflow_uri is not None:
            check_mlflow()  # here, before the cluster is asked for anything
        recipe = self.recipe()
        context.cluster.open()
        frontend = frontend_of(context, self.label, recipe, sealed(self.inputs()[self.begins_with]))
        job = TrainJob(recipe, context.store, out.key, workers, frontend)
        name = out.key.fingerprint
        context.store.delete(job.leave_path)
        forget_progress(context.store, out.key)  # an earlier attempt's pace is not this one's
        with _Watcher(context, out, self.label), _asked_to_leave(job) as asked:
            runtime.train(
                run_training,
                job,
                name=name,
                store=context.store,
                config=workers,
                tags=context.tags(self.label),
            )
        if asked.is_set() and "parts/curves.parquet" not in out.done():
            raise StoppedError(
                f"{self.label} was asked to stop, saved a checkpoint and left; run the same command "
                f"again to go on"
            )
        runtime.forget_checkpoints(context.store, name)
        context.store.delete(f"{out.key.prefix}/candidates")
        forget_progress(context.store, out.key)
        return Seal()


@contextmanager
def _asked_to_leave(job: TrainJob) -> Iterator[threading.Event]:
    """SIGTERM tells the gang to save and leave; by the store, since it may be on other machines."""
    asked = threading.Event()

    def leave(*_: object) -> None:
        asked.set()
        job.store.put(job.leave_path, b"")

    if threading.current_thread() is not threading.main_thread():
        yield asked  # signals are the main thread's
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


class _Watcher:
    """Shows the progress that rank 0 leaves in the store, where ``gmp-atl status`` sees it as well."""

    def __init__(self, context: Context, out: ArtifactWriter, label: str) -> None:
        self._context = context
        self._key = out.key
        self._label = label
        self._pace: Pace | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        with self._context.reporter.bar(self._label) as bar:
            while not self._stop.wait(_POLL_S):
                seen = read_progress(self._context.store, self._key)
                if seen is not None:
                    bar.update(seen.done, seen.total, self._with_end(seen).note())

    def _with_end(self, seen: Snapshot) -> Snapshot:
        """Expected from where the training stood when it was first seen here."""
        self._pace = self._pace or Pace(seen.done)
        ends_in_s = self._pace.ends_in_s(seen.done, seen.total)
        return seen.model_copy(update={"ends_in_s": ends_in_s})
