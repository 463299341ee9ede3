"""The one loop that trains every stage.

The host gives the device its work and does not wait for it, except once an update, for whether the gradient
is finite (``engine.py``), and where values are read: at points of the curve and in checkpoints.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist

from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.errors import WorkerError
from gmp_atl_dist.runtime.work import Gang
from gmp_atl_dist.store.frontend import FrontendReader
from gmp_atl_dist.store.progress import SMOOTHED_ACCURACY, forget_progress
from gmp_atl_dist.store.readers import AudioReader
from gmp_atl_dist.training.alive import SignsOfLife
from gmp_atl_dist.training.batches import BatchLoader, max_crop_samples
from gmp_atl_dist.training.job import TrainJob
from gmp_atl_dist.training.memory import PassTooLargeError, audio_s
from gmp_atl_dist.training.meter import Meter
from gmp_atl_dist.training.mixture import plan_updates
from gmp_atl_dist.training.passes import Passes, PassResult
from gmp_atl_dist.training.ranks import Agreement, HostGroup, in_time
from gmp_atl_dist.training.reporting import Reporting
from gmp_atl_dist.training.saving import Saver
from gmp_atl_dist.training.sending import Ahead, Update
from gmp_atl_dist.training.validation import validation_uar

__all__ = ["TrainJob", "run_training"]

_log = logging.getLogger(__name__)


def run_training(job: TrainJob, gang: Gang) -> None:
    """Train to the end, from the newest complete checkpoint. Rank 0 writes the artefact's files.

    It returns early, after saving a checkpoint, when a stop is requested; at once, if that was before. It
    returns at once as well if an earlier gang of this job has noted a failure that would come again.

    Raises:
        WorkerError: too many losses are not finite; raised on every rank at the same update. Or this rank has
            waited for another one for ``collective_timeout_s``.
        PassTooLargeError: a pass does not fit into the memory. It is noted among the checkpoints.
        CheckpointError: the checkpoint does not fit.
    """
    with in_time(job.tags.label or job.recipe.name, gang, job.workers.collective_timeout_s):
        _run(job, gang)


def _run(job: TrainJob, gang: Gang) -> None:
    group = HostGroup(job.workers.collective_timeout_s)
    if _ended_before(job, gang, group):
        return
    signs = SignsOfLife(job.checkpoints, gang.rank)
    signs.give()
    local = Path(tempfile.mkdtemp(prefix="gmp-atl-"))
    try:
        trainer = _Trainer(job, gang, group, local, signs)
        try:
            trainer.run()
        finally:
            trainer.close()
    except PassTooLargeError as e:
        # The gang will be started again, which shall not try the same pass again.
        job.checkpoints.note_failure(e.message)
        raise
    finally:
        shutil.rmtree(local, ignore_errors=True)


def _ended_before(job: TrainJob, gang: Gang, group: HostGroup) -> bool:
    """Whether a stop was requested, or a failure noted, while the gang was (re)started; same on all ranks."""
    ended = False
    if gang.rank == 0:
        # An earlier gang's progress is not this one's: nothing is to be saved before the first update.
        forget_progress(job.store, job.key)
        ended = job.checkpoints.stop_requested() or job.checkpoints.failure() is not None
    (ends,) = group.sums([float(ended)])
    return ends > 0


class _Trainer:
    def __init__(
        self, job: TrainJob, gang: Gang, group: HostGroup, local: Path, signs: SignsOfLife
    ) -> None:
        self._job = job
        self._signs = signs
        self._gang = gang
        self._recipe = recipe = job.recipe
        self._config = recipe.optim
        max_samples = max_crop_samples(self._config.max_utterance_s)
        plan = plan_updates(
            recipe.corpus,
            recipe.utterances,
            recipe.unlabelled_share,
            batch_s=self._config.batch_s,
            max_samples=max_samples,
            seed=self._config.seed,
        )
        self._batches_per_epoch = plan.batches_per_epoch
        self._total_steps = (
            self._config.steps
            if self._config.steps is not None
            else (self._config.epochs or 0) * plan.batches_per_epoch
        )
        self._loader = BatchLoader(
            plan,
            recipe.utterances.rows,
            AudioReader(recipe.corpus),
            rank=gang.rank,
            world_size=gang.world_size,
            micro_batches=self._config.micro_batches,
            max_samples=max_samples,
            seed=self._config.seed,
            frontend=None if job.frontend is None else FrontendReader(job.frontend),
        )
        self._saver = Saver(job, gang, local)
        meter = Meter()
        self._engine = self._saver.restored_engine(meter, self._loader, group)
        self._state = self._saver.state
        self._reporting = Reporting(
            *(job, gang, local),
            saver=self._saver,
            meter=meter,
            group=group,
            total_steps=self._total_steps,
        )
        self._agreement = Agreement(group, gang, job.checkpoints, self._saver.interval)
        self._passes = Passes(
            *(self._engine, recipe, group),
            halve=job.workers.on_out_of_memory == "halve",
            # DeepSpeed takes the mean over ranks and passes; our terms are shares of one sum.
            scale=gang.world_size * self._loader.passes,
        )

    def run(self) -> None:
        state, recipe = self._state, self._recipe
        self._engine.train()
        self._signs.give()
        self._reporting.show_gauges(state.step)
        updates = self._loader.updates(state.step, self._total_steps)
        device, waiting = self._engine.device, self._reporting.pace.waiting
        ahead = Ahead(updates, recipe.counts, device, waiting)
        while (update := ahead.next()) is not None:
            stop = self._update(update, ahead)
            state.step = update.step + 1
            self._reporting.update_done(state.step)
            if recipe.selection and state.step % self._batches_per_epoch == 0:
                self._validate_epoch(state.step // self._batches_per_epoch)
            if state.step == self._total_steps:
                break
            if stop or state.step % self._job.workers.checkpoint_every_steps == 0:
                self._save()
            if stop:
                self._gang.report(self._saver.uploader.finish())
                return
        self._signs.give()
        with self._engine.gathered(recipe.build) as model:
            if self._gang.rank == 0:
                epochs = -(-self._total_steps // self._batches_per_epoch)
                self._saver.export(model, updates=self._total_steps, epochs=epochs)
        # No rank returns before the files are written: a gang is done when all of its ranks are.
        dist.barrier()

    def close(self) -> None:
        """Wait for the upload that is running."""
        self._saver.close()
        self._reporting.close()

    def _update(self, update: Update, ahead: Ahead) -> bool:
        """Take one update. Returns whether the gang shall save a checkpoint and stop after it."""
        engine, recipe, step = self._engine, self._recipe, update.step
        engine.start_update(step, self._total_steps)
        recipe.start_update(engine.model, step, self._total_steps)
        told = self._agreement.exchange(update.counts, uploaded=self._saver.uploader.uploaded)
        self._saver.seal_if(told.uploaded)
        if told.save and self._state.step:
            self._save()
        skipped = engine.skipped_updates
        results = self._passes.compute(update, told.counts, meanwhile=ahead.prepare)
        trained_s = sum(audio_s(result.batch) for result in results)
        self._reporting.pace.add(SAMPLE_RATE_HZ * trained_s)
        if engine.skipped_updates > skipped:
            self._note_skipped(step, results)
        else:
            self._measure(results)
        return told.stop

    def _measure(self, results: list[PassResult]) -> None:
        """Add up what the passes of an update have measured, without a look at it."""
        meter, hits = self._reporting.meter, self._reporting.hits
        for result in results:
            meter.add(result.metrics)
            if result.hits is not None:
                hits.add({SMOOTHED_ACCURACY: result.hits})
        # Every rank has the same names, and only the first one counts the update.
        first = self._gang.rank == 0
        once = 1.0 if first else 0.0
        norm = self._engine.gradient_norm if first else 0.0
        meter.add({"loss": (0.0, once), "gradient_norm": (norm, once)})
        meter.add({n: (once * r, once) for n, r in self._engine.learning_rates.items()})

    def _save(self) -> None:
        self._reporting.flush()
        self._saver.save(self._engine, self._reporting.meter)

    def _note_skipped(self, step: int, results: list[PassResult]) -> None:
        """All ranks have skipped the update. Stops the training when there were too many of them."""
        name, state = self._recipe.name, self._state
        state.skipped_at.append(step)
        broken = [r.batch for r in results if not torch.isfinite(r.loss)]
        not_finite = [u.utterance_id for batch in broken for u in batch.utterances]
        ids = f"; this worker's batch: {', '.join(not_finite[:8])} ..." if not_finite else ""
        message = f"{name}: the loss or its gradient is not finite at update {step}{ids}"
        if len(state.skipped_at) > self._config.max_skipped_updates:
            raise WorkerError(
                f"{message}; {len(state.skipped_at)} updates were skipped for this reason, and "
                f"{name}.max_skipped_updates = {self._config.max_skipped_updates}; lower {name}.lr or "
                f"raise {name}.warmup_fraction"
            )
        if not_finite or self._gang.rank == 0:
            _log.warning("%s; the update is skipped", message)

    def _validate_epoch(self, epoch: int) -> None:
        """Score the model on the selection utterances, and keep its weights if they are the best."""
        gang, state = self._gang, self._state
        with self._engine.gathered(self._recipe.build) as model:
            uar = validation_uar(
                self._recipe,
                model,
                self._loader.validation_batch,
                self._engine.device,
                rank=gang.rank,
                world_size=gang.world_size,
                goes_on=self._signs.give,
            )
            self._reporting.add_point("selection_uar", uar)
            if uar > state.best_uar:
                state.best_uar = uar
                state.best_epoch = epoch
                if gang.rank == 0:
                    self._saver.keep_candidate(epoch, model)
