"""The one loop that trains every stage."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import torch
import torch.distributed as dist
from torch import nn

from gmp_atl_dist.config import TrainWorkersConfig, canonical_json
from gmp_atl_dist.device import torch_device
from gmp_atl_dist.errors import CheckpointError, WorkerError
from gmp_atl_dist.records import CURVE_SCHEMA
from gmp_atl_dist.runtime.work import Gang
from gmp_atl_dist.seeding import keyed_seed
from gmp_atl_dist.store.artifact import Artifact, ArtifactKey, ArtifactWriter
from gmp_atl_dist.store.checkpoints import CheckpointRecord, Checkpoints
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.frontend import FrontendReader
from gmp_atl_dist.store.progress import (
    CHANCE,
    SMOOTHED_ACCURACY,
    ProgressFile,
    ProgressSnapshot,
    forget_progress,
)
from gmp_atl_dist.store.readers import AudioReader
from gmp_atl_dist.tags import NO_TAGS, Tags
from gmp_atl_dist.training.batches import Batch, BatchLoader, max_crop_samples
from gmp_atl_dist.training.checkpoint import (
    CurvePoint,
    TrainingState,
    Uploader,
    find_checkpoint,
    load_state,
    save_state,
    universal_form,
)
from gmp_atl_dist.training.engine import Engine
from gmp_atl_dist.training.meter import Meter, Smoothed
from gmp_atl_dist.training.metrics_log import open_logs
from gmp_atl_dist.training.mixture import plan_updates
from gmp_atl_dist.training.recipe import Recipe
from gmp_atl_dist.training.timing import Interval, TrainingPace
from gmp_atl_dist.training.validation import validation_uar

_log = logging.getLogger(__name__)

_CURVE_POINTS = 200
_PROGRESS_EVERY_S = 2.0
_STOP_POLL_S = 1.0
_PREEMPTION_POLL_S = 5.0


@dataclass(frozen=True)
class TrainJob:
    """Everything that a rank is given: what to train, and where the result goes.

    ``frontend`` is read instead of audio: an artefact of kind ``frontend`` of the frozen encoder that
    the recipe starts from, where nothing is cropped. ``stages/frontend.py`` makes it.
    """

    recipe: Recipe
    store: Store
    key: ArtifactKey
    workers: TrainWorkersConfig
    frontend: Artifact | None = None
    tags: Tags = NO_TAGS
    """What logs of metrics call this training."""

    @property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.store, self.key.fingerprint)


def run_training(job: TrainJob, gang: Gang) -> None:
    """Train to the end, from the newest complete checkpoint. Rank 0 writes the artefact's files.

    It returns early, after saving a checkpoint, when a stop is requested; at once, if that was before.

    Raises:
        WorkerError: too many losses are not finite; raised on every rank at the same update.
        CheckpointError: the checkpoint does not fit.
    """
    if _stopped_before(job, gang):
        return
    local = Path(tempfile.mkdtemp(prefix="gmp-atl-"))
    try:
        trainer = _Trainer(job, gang, local)
        try:
            trainer.run()
        finally:
            trainer.close()
    finally:
        shutil.rmtree(local, ignore_errors=True)


def _stopped_before(job: TrainJob, gang: Gang) -> bool:
    """Whether a stop was requested while the gang was (re)started; all ranks get the same answer."""
    requested = False
    if gang.rank == 0:
        # An earlier gang's progress is not this one's: nothing is to be saved before the first update.
        forget_progress(job.store, job.key)
        requested = job.checkpoints.stop_requested()
    flag = torch.tensor([float(requested)], device=torch_device())
    dist.all_reduce(flag)
    return bool(flag.item())


class _Trainer:
    def __init__(self, job: TrainJob, gang: Gang, local: Path) -> None:
        self._job = job
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
        self._out = ArtifactWriter(job.store, job.key)
        self._meter = Meter()
        self._hits = Meter()
        self._smoothed = Smoothed()
        self._state = TrainingState()
        self._engine = self._restored_engine(local)
        self._pace = TrainingPace(gang.world_size)
        self._first_step = self._state.step
        self._save_interval = Interval(60 * job.workers.checkpoint_every_min, due_at_first=False)
        self._stop_poll = Interval(_STOP_POLL_S)
        self._preemption_poll = Interval(_PREEMPTION_POLL_S)
        self._progress = ProgressFile(job.store, job.key, every_s=_PROGRESS_EVERY_S)
        self._preempted = False
        where = {"rank": gang.rank, "after_step": self._state.step}
        self._logs = open_logs(job.store, job.key, job.workers, local, tags=job.tags, **where)

    def _restored_engine(self, local: Path) -> Engine:
        """The engine, in the state of the newest complete checkpoint if there is one."""
        gang, workers = self._gang, self._job.workers
        checkpoints = self._job.checkpoints
        self._uploader = Uploader(
            checkpoints,
            local,
            rank=gang.rank,
            world_size=gang.world_size,
            zero_stage=workers.zero_stage,
        )
        where = {"node_leader": gang.node_leader, "node": gang.node}
        newest = find_checkpoint(checkpoints, local, rank=gang.rank, **where)
        folder, reshape = None, False
        if newest is not None:
            record, folder = newest
            self._state, totals = load_state(folder, gang.rank, gang.world_size)
            self._state.resumed_at.append(record.step)
            self._meter.add(totals)
            # DeepSpeed divides the optimiser by ranks, so another number needs another form of it.
            shards = (record.world_size, record.zero_stage)
            reshape = shards != (gang.world_size, workers.zero_stage)
            if reshape and 3 in (record.zero_stage, workers.zero_stage):
                raise _other_shards(self._recipe.name, record, gang.world_size, workers.zero_stage)
            if reshape:
                folder = universal_form(folder, local, **where)
        model = self._recipe.build()
        backbone = self._recipe.backbone(model)
        if workers.gradient_checkpointing:
            backbone.checkpoint_activations()
        passes = self._loader.passes
        engine = Engine(model, backbone, self._config, workers, passes=passes, universal=reshape)
        if folder is not None:
            engine.restore(folder)
        return engine

    def run(self) -> None:
        state = self._state
        self._engine.train()
        self._log_metrics(state.step)
        updates = self._loader.updates(state.step, self._total_steps)
        while (update := self._next(updates)) is not None:
            step, batches = update
            stop = self._update(step, batches)
            state.step = step + 1
            self._log(step + 1)
            if self._recipe.selection and state.step % self._batches_per_epoch == 0:
                self._validate_epoch(state.step // self._batches_per_epoch)
            if state.step == self._total_steps:
                break
            if stop or state.step % self._job.workers.checkpoint_every_steps == 0:
                self._save()
            if stop:
                self._gang.report(self._uploader.finish())
                return
        with self._engine.gathered(self._recipe.build) as model:
            if self._gang.rank == 0:
                self._export(model)
        # No rank returns before the files are written: a gang is done when all of its ranks are.
        dist.barrier()

    def close(self) -> None:
        """Wait for the upload that is running."""
        self._uploader.close()
        self._logs.close()

    def _next(self, updates: Iterator[tuple[int, list[Batch]]]) -> tuple[int, list[Batch]] | None:
        with self._pace.waiting():
            return next(updates, None)

    def _update(self, step: int, batches: list[Batch]) -> bool:
        """Take one update. Returns whether the gang shall save a checkpoint and stop after it."""
        engine, recipe = self._engine, self._recipe
        engine.start_update(step, self._total_steps)
        recipe.start_update(engine.model, step, self._total_steps)
        counts, stop = self._agree([recipe.counts(batch) for batch in batches])
        metrics: list[dict[str, tuple[float, float]]] = []
        hits: list[tuple[float, float]] = []
        not_finite: list[str] = []
        skipped = engine.skipped_updates
        for batch in batches:
            torch.manual_seed(keyed_seed("dropout", self._config.seed, step, batch.micro))
            losses = recipe.losses(engine.forward, batch.to(engine.device))
            loss = torch.zeros((), device=engine.device)
            for factor, total, count in zip(recipe.factors, losses.sums, counts, strict=True):
                loss = loss + total * (factor / max(count, 1e-12))
            if not torch.isfinite(loss):
                not_finite += [u.utterance_id for u in batch.utterances]
            hits += [] if losses.hits is None else [losses.hits]
            metrics.append({**losses.metrics, "loss": (float(loss.detach()), 0.0)})
            self._pace.add(float((batch.num_samples_B * batch.weight_B.cpu()).sum()))
            # DeepSpeed takes the mean over ranks and passes; our terms are shares of one sum.
            engine.backward_and_step(loss * (self._gang.world_size * len(batches)))
        if engine.skipped_updates > skipped:
            self._note_skipped(step, not_finite)
            return stop
        for of_batch in metrics:
            self._meter.add(of_batch)
        for pair in hits:
            self._hits.add({SMOOTHED_ACCURACY: pair})
        # Every rank has the same names, and only the first one counts the update.
        once = 1.0 if self._gang.rank == 0 else 0.0
        norm = once * engine.gradient_norm
        self._meter.add({"loss": (0.0, once), "gradient_norm": (norm, once)})
        self._meter.add({n: (once * r, once) for n, r in engine.learning_rates.items()})
        return stop

    def _agree(self, counts: list[tuple[float, ...]]) -> tuple[list[float], bool]:
        """The one exchange per update: the losses' divisors, who has uploaded, whether to stop."""
        uploader, first = self._uploader, self._gang.rank == 0
        stop = first and self._poll_stop()
        poll = first and self._preemption_poll.due
        save = first and self._save_interval.due
        flags = [float(uploader.uploaded), float(stop), float(poll), float(save)]
        mine = torch.tensor(counts, dtype=torch.float64).sum(dim=0)
        values = torch.cat([mine, torch.tensor(flags, dtype=torch.float64)])
        values = values.to(self._engine.device)
        dist.all_reduce(values)
        *summed, uploaded, stopping, polling, saving = values.tolist()
        if uploader.uploading and uploaded == self._gang.world_size:
            self._gang.report(uploader.seal())
        preempted = polling > 0 and self._poll_preemption()
        if (saving or preempted) and self._state.step:
            self._save()
        return summed, stopping > 0

    def _poll_stop(self) -> bool:
        """Look for a stop request in the store, at most once per interval."""
        if not self._stop_poll.due:
            return False
        self._stop_poll.restart()
        return self._job.checkpoints.stop_requested()

    def _poll_preemption(self) -> bool:
        """Whether a machine was announced to go away, the first time that it is seen.

        A checkpoint is saved then. Training continues until the machine is gone and the gang restarts.
        """
        self._preemption_poll.restart()
        if self._preempted or not self._gang.preemption_pending():
            return False
        self._preempted = True
        return True

    def _save(self) -> None:
        """Start a checkpoint of the updates so far. Waits for the upload of the one before it."""
        self._logs.flush()  # a run that resumes from it does not log the earlier steps again
        if self._uploader.uploading:
            self._gang.report(self._uploader.finish())
        self._uploader.save(self._state.step, self._write_checkpoint)
        self._save_interval.restart()

    def _note_skipped(self, step: int, not_finite: list[str]) -> None:
        """All ranks have skipped the update. Stops the training when there were too many of them."""
        name, state = self._recipe.name, self._state
        state.skipped_at.append(step)
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

    def _log(self, step: int) -> None:
        every = max(1, self._total_steps // _CURVE_POINTS)
        is_point = step % every == 0 or step == self._total_steps
        if is_point:
            means = self._meter.means(self._engine.device)
            for name, value in means.items():
                self._state.curve.append(CurvePoint(step=step, name=name, value=value))
            self._logs.log(step, {**means, **self._watched_accuracy(), **self._pace_metrics()})
        if is_point or self._progress.is_due:
            self._log_metrics(step)
        if self._gang.rank == 0 and self._progress.is_due:
            pace = self._pace_metrics()
            audio_h_per_h = pace.pop("audio_h_per_h")
            metrics = self._newest() | pace | self._smoothed_accuracy()
            self._progress.write(
                ProgressSnapshot(
                    done=step,
                    total=self._total_steps,
                    audio_h_per_h=audio_h_per_h,
                    ends_in_s=self._pace.ends_in_s(
                        step - self._first_step, self._total_steps - step
                    ),
                    metrics={name: float(f"{value:.4g}") for name, value in metrics.items()},
                )
            )

    def _watched_accuracy(self) -> dict[str, float]:
        """The accuracy since the last point of the curve; every rank must call it at the same update."""
        found = self._hits.sums(self._engine.device)
        for total, count in found.values():
            self._smoothed.add(total, count)
        return {name: total / count for name, (total, count) in found.items() if count}

    def _smoothed_accuracy(self) -> dict[str, float]:
        if self._smoothed.mean is None:
            return {}
        chance = self._recipe.chance
        return {SMOOTHED_ACCURACY: self._smoothed.mean} | (
            {} if chance is None else {CHANCE: chance}
        )

    def _log_metrics(self, step: int) -> None:
        """Set the cluster's gauges. Those of a training that hangs keep their last values."""
        if self._gang.rank != 0:
            return
        counts = {
            "updates_done": step,
            "updates_planned": self._total_steps,
            "updates_skipped": len(self._state.skipped_at),
            "checkpoint_time_s": self._uploader.sealed_s,
        }
        self._gang.log_metrics({**self._newest(), **self._pace_metrics(), **counts})

    def _newest(self) -> dict[str, float]:
        """The last value of each metric of the curve."""
        return {p.name: p.value for p in self._state.curve}

    def _pace_metrics(self) -> dict[str, float]:
        return self._pace.metrics(self._uploader.stalled_s)

    def _validate_epoch(self, epoch: int) -> None:
        """Score the model on the selection utterances, and keep its weights if they are the best."""
        gang = self._gang
        with self._engine.gathered(self._recipe.build) as model:
            uar = validation_uar(
                self._recipe,
                model,
                self._loader.validation_batch,
                self._engine.device,
                rank=gang.rank,
                world_size=gang.world_size,
            )
            self._state.curve.append(
                CurvePoint(step=self._state.step, name="selection_uar", value=uar)
            )
            self._logs.log(self._state.step, {"selection_uar": uar})
            if uar > self._state.best_uar:
                self._state.best_uar = uar
                self._state.best_epoch = epoch
                if gang.rank == 0:
                    for name, data in self._recipe.export(model).items():
                        self._job.store.put(f"{self._candidate(epoch)}/{name}", data)

    def _write_checkpoint(self, folder: Path) -> None:
        self._engine.save(folder)
        save_state(folder, self._gang.rank, self._state, self._meter.totals)

    def _export(self, model: nn.Module) -> None:
        best = self._state.best_epoch
        if best is None:
            files = self._recipe.export(model)
        else:
            prefix = self._candidate(best)
            names = [e.path.removeprefix(f"{prefix}/") for e in self._job.store.list(prefix)]
            files = {name: self._job.store.read(f"{prefix}/{name}") for name in names}
        for name, data in sorted(files.items()):
            self._out.put_file(name, data)
        rows = [point.model_dump() for point in self._state.curve]
        self._out.put_part("curves", pa.Table.from_pylist(rows, schema=CURVE_SCHEMA))
        summary = {
            "updates": self._total_steps,
            "epochs": -(-self._total_steps // self._batches_per_epoch),
            "best_epoch": best,
            "resumed_at": list(self._state.resumed_at),
            "skipped_at": list(self._state.skipped_at),
        }
        self._out.put_file("training.json", canonical_json({**summary}).encode())

    def _candidate(self, epoch: int) -> str:
        return f"{self._job.key.prefix}/candidates/{epoch:04d}"


def _other_shards(
    name: str, record: CheckpointRecord, world_size: int, zero_stage: int
) -> CheckpointError:
    """DeepSpeed's universal form of ZeRO 3 does not load into ZeRO 1 or 2, and resumes differently."""
    return CheckpointError(
        f"{name}: the newest checkpoint was saved by {record.world_size} workers with "
        f"runtime.train.zero_stage = {record.zero_stage}; {world_size} workers with zero_stage = "
        f"{zero_stage} cannot resume from it, because ZeRO 3 needs the same number of workers: set both "
        f"back for this stage, or delete the run's folder below checkpoints/ to train it from its start"
    )
