"""The one loop that trains every stage."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import torch
import torch.distributed as dist
from torch import nn

from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.config import TrainWorkersConfig, canonical_json
from gmp_atl_dist.errors import CheckpointError, WorkerError
from gmp_atl_dist.metrics import confusion_matrix, scores_from_confusion
from gmp_atl_dist.records import CURVE_SCHEMA
from gmp_atl_dist.seeding import keyed_seed
from gmp_atl_dist.store.artifact import Artifact, ArtifactKey, ArtifactWriter
from gmp_atl_dist.store.checkpoints import CheckpointRecord, Checkpoints
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.frontend import FrontendReader
from gmp_atl_dist.store.index import IndexRow
from gmp_atl_dist.store.readers import AudioReader
from gmp_atl_dist.training.batches import Batch, BatchLoader, BatchPlan, max_crop_samples
from gmp_atl_dist.training.checkpoint import (
    Point,
    Progress,
    Uploader,
    find_checkpoint,
    load_progress,
    save_progress,
    universal_form,
)
from gmp_atl_dist.training.engine import Engine
from gmp_atl_dist.training.meter import Meter
from gmp_atl_dist.training.metrics_log import open_logs
from gmp_atl_dist.training.recipe import Recipe

_log = logging.getLogger(__name__)

_CURVE_POINTS = 200
_PROGRESS_EVERY_S = 2.0
_LOOK_EVERY_S = 1.0
_ASK_EVERY_S = 5.0
_JUDGED_UTTERANCES = 16


class Gang(Protocol):
    """What the loop needs of whoever runs it; ``runtime`` has one that is Ray Train's."""

    rank: int
    world_size: int
    node: int
    """Which machine this rank is on, counted from 0."""
    node_leader: bool
    """Whether it fetches checkpoints for the others there."""

    def report(self, step: int) -> None:
        """A checkpoint of this update is safe. Every rank says so at the same update."""
        ...

    def loses_a_node(self) -> bool:
        """Whether a machine of the gang will soon be taken away. Every rank asks at the same update."""
        ...

    def measure(self, measures: Mapping[str, float]) -> None:
        """Show how the training goes to whoever watches the cluster. The first rank alone does."""
        ...


@dataclass(frozen=True)
class TrainJob:
    """All that a rank is given: what to train, and where the result goes.

    ``frontend`` is read instead of audio: an artefact of kind ``frontend`` of the frozen encoder with which
    the recipe begins, where nothing is cropped. ``stages/frontend.py`` makes it and knows when.
    """

    recipe: Recipe
    store: Store
    key: ArtifactKey
    workers: TrainWorkersConfig
    frontend: Artifact | None = None

    @property
    def leave_path(self) -> str:
        """While this object exists, the gang saves a checkpoint and leaves."""
        return f"checkpoints/{self.key.fingerprint}/_leave"


def run_training(job: TrainJob, gang: Gang) -> None:
    """Train to the end from wherever the newest checkpoint stands; rank 0 writes the artefact's files.

    It returns early, with a checkpoint saved, when it is asked to leave.

    Raises:
        WorkerError: too many losses are not finite; raised on every rank at the same update.
        CheckpointError: the checkpoint does not fit.
    """
    local = Path(tempfile.mkdtemp(prefix="gmp-atl-"))
    try:
        trainer = _Trainer(job, gang, local)
        try:
            trainer.run()
        finally:
            trainer.close()
    finally:
        shutil.rmtree(local, ignore_errors=True)


class _Trainer:
    def __init__(self, job: TrainJob, gang: Gang, local: Path) -> None:
        self._job = job
        self._gang = gang
        self._recipe = recipe = job.recipe
        self._config = recipe.optim
        self._reader = AudioReader(recipe.corpus)
        max_samples = max_crop_samples(self._config.max_utterance_s)
        plan = BatchPlan(
            recipe.utterances.num_samples,
            recipe.utterances.part_numbers,
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
            self._reader,
            rank=gang.rank,
            world_size=gang.world_size,
            micro_batches=self._config.micro_batches,
            max_samples=max_samples,
            seed=self._config.seed,
            frontend=None if job.frontend is None else FrontendReader(job.frontend),
        )
        self._out = ArtifactWriter(job.store, job.key)
        self._meter = Meter()
        self._progress = Progress()
        self._engine = self._begin(local)
        self._began_s = self._saved_s = time.monotonic()
        self._shown_s = self._looked_s = self._asked_s = float("-inf")
        self._noticed = False
        self._waited_s = self._heard_s = 0.0
        where = {"rank": gang.rank, "after_step": self._progress.step}
        self._logs = open_logs(job.store, job.key, job.workers, local, **where)

    def _begin(self, local: Path) -> Engine:
        """The engine, where the newest whole checkpoint left it."""
        gang, workers = self._gang, self._job.workers
        checkpoints = Checkpoints(self._job.store, self._job.key.fingerprint)
        self._uploader = Uploader(
            checkpoints,
            local,
            rank=gang.rank,
            world_size=gang.world_size,
            zero_stage=workers.zero_stage,
        )
        where = {"node_leader": gang.node_leader, "node": gang.node}
        found = find_checkpoint(checkpoints, local, rank=gang.rank, **where)
        folder, reshape = None, False
        if found is not None:
            record, folder = found
            self._progress, totals = load_progress(folder, gang.rank, gang.world_size)
            self._progress.resumed_at.append(record.step)
            self._meter.add(totals)
            # DeepSpeed divides the optimiser by ranks, so others need it in another form.
            shards = (record.world_size, record.zero_stage)
            reshape = shards != (gang.world_size, workers.zero_stage)
            if reshape and 3 in (record.zero_stage, workers.zero_stage):
                raise _other_shards(self._recipe.name, record, gang.world_size, workers.zero_stage)
            if reshape:
                folder = universal_form(folder, local, **where)
        model = self._recipe.build()
        if workers.gradient_checkpointing:
            self._recipe.backbone(model).checkpoint_gradients()
        engine = Engine(model, self._config, workers, passes=self._loader.passes, universal=reshape)
        if folder is not None:
            engine.restore(folder)
        return engine

    def run(self) -> None:
        progress = self._progress
        self._engine.train()
        self._measure(progress.step)
        updates = self._loader.updates(progress.step, self._total_steps)
        while (found := self._next(updates)) is not None:
            step, batches = found
            asked_to_leave = self._update(step, batches)
            progress.step = step + 1
            self._log(step + 1)
            if self._recipe.selection and progress.step % self._batches_per_epoch == 0:
                self._judge_epoch(progress.step // self._batches_per_epoch)
            if progress.step == self._total_steps:
                break
            due = progress.step % self._job.workers.checkpoint_every_steps == 0
            if due or asked_to_leave:
                self._save()
            if asked_to_leave:
                self._gang.report(self._uploader.finish())
                return
        with self._engine.whole(self._recipe.build) as model:
            if self._gang.rank == 0:
                self._export(model)
        # Nobody leaves before the files are there: a gang is done when all of it is.
        dist.barrier()

    def close(self) -> None:
        """Let what is being uploaded come to its end."""
        self._uploader.close()
        self._logs.close()

    def _next(self, updates: Iterator[tuple[int, list[Batch]]]) -> tuple[int, list[Batch]] | None:
        started_s = time.monotonic()
        found = next(updates, None)
        self._waited_s += time.monotonic() - started_s
        return found

    def _update(self, step: int, batches: list[Batch]) -> bool:
        """Take the update; whether the gang is asked to save and leave after it."""
        engine, recipe = self._engine, self._recipe
        rate = engine.set_learning_rate(step, self._total_steps)
        counts, leave = self._agree([recipe.counts(batch) for batch in batches])
        measures: list[dict[str, tuple[float, float]]] = []
        bad: list[str] = []
        skipped = engine.skipped_updates
        for batch in batches:
            torch.manual_seed(keyed_seed("dropout", self._config.seed, step, batch.micro))
            losses = recipe.losses(engine.forward, batch.to(engine.device))
            loss = torch.zeros((), device=engine.device)
            for factor, total, count in zip(recipe.factors, losses.sums, counts, strict=True):
                loss = loss + total * (factor / max(count, 1e-12))
            if not torch.isfinite(loss):
                bad += [u.utterance_id for u in batch.utterances]
            measures.append({**losses.measures, "loss": (float(loss.detach()), 0.0)})
            self._heard_s += float((batch.num_samples_B * batch.weight_B.cpu()).sum())
            # DeepSpeed takes the mean over ranks and passes; ours are shares of one sum.
            engine.backward_and_step(loss * (self._gang.world_size * len(batches)))
        if engine.skipped_updates > skipped:
            self._skipped(step, bad)
            return leave
        for measured in measures:
            self._meter.add(measured)
        # Every rank has the same names, and one of them counts the update.
        once = 1.0 if self._gang.rank == 0 else 0.0
        norm = once * engine.gradient_norm
        self._meter.add({"loss": (0.0, once), "gradient_norm": (norm, once)})
        self._meter.add({"learning_rate": (once * rate, once)})
        return leave

    def _agree(self, counts: list[tuple[float, ...]]) -> tuple[list[float], bool]:
        """One exchange an update: what losses are divided by, who has uploaded, whether to leave."""
        uploader = self._uploader
        leave = self._gang.rank == 0 and self._sees_leave()
        look = self._gang.rank == 0 and self._is_time_to_ask()
        save = self._gang.rank == 0 and self._is_time_to_save()
        flags = [float(uploader.uploaded), float(leave), float(look), float(save)]
        mine = torch.tensor(counts, dtype=torch.float64).sum(dim=0)
        values = torch.cat([mine, torch.tensor(flags, dtype=torch.float64)])
        values = values.to(self._engine.device)
        dist.all_reduce(values)
        *summed, uploaded, leaving, look, save = values.tolist()
        if uploader.uploading and uploaded == self._gang.world_size:
            self._gang.report(uploader.seal())
        # A spot machine's notice: save now, and train on until it is gone and the gang starts anew.
        noticed = look > 0 and not self._noticed and self._gang.loses_a_node()
        self._noticed = self._noticed or noticed
        if (save or noticed) and self._progress.step:
            self._save()
        return summed, leaving > 0

    def _sees_leave(self) -> bool:
        """Whether the gang is asked to leave; the store is asked now and then."""
        now_s = time.monotonic()
        if now_s - self._looked_s < _LOOK_EVERY_S:
            return False
        self._looked_s = now_s
        return self._job.store.exists(self._job.leave_path)

    def _is_due(self) -> bool:
        return time.monotonic() - self._shown_s >= _PROGRESS_EVERY_S

    def _is_time_to_save(self) -> bool:
        every_s = 60 * self._job.workers.checkpoint_every_min
        return time.monotonic() - self._saved_s >= every_s

    def _is_time_to_ask(self) -> bool:
        now_s = time.monotonic()
        due = now_s - self._asked_s >= _ASK_EVERY_S
        self._asked_s = now_s if due else self._asked_s
        return due

    def _save(self) -> None:
        """Begin a checkpoint of the updates taken so far; wait for the one before it, if need be."""
        self._logs.flush()  # what goes on from it logs nothing again of what came before
        if self._uploader.uploading:
            self._gang.report(self._uploader.finish())
        self._uploader.save(self._progress.step, self._write_checkpoint)
        self._saved_s = time.monotonic()

    def _skipped(self, step: int, bad: list[str]) -> None:
        """All ranks have skipped the update together; stop when it was one too many."""
        name, progress = self._recipe.name, self._progress
        progress.skipped_at.append(step)
        ids = f"; this worker's batch: {', '.join(bad[:8])} ..." if bad else ""
        said = f"{name}: the loss or its gradient is not finite at update {step}{ids}"
        if len(progress.skipped_at) > self._config.max_skipped_updates:
            raise WorkerError(
                f"{said}; {len(progress.skipped_at)} updates were skipped for that, and "
                f"{name}.max_skipped_updates = {self._config.max_skipped_updates}; lower {name}.lr or "
                f"raise {name}.warmup_fraction"
            )
        if bad or self._gang.rank == 0:
            _log.warning("%s; it is skipped", said)

    def _log(self, step: int) -> None:
        every = max(1, self._total_steps // _CURVE_POINTS)
        is_point = step % every == 0 or step == self._total_steps
        if is_point:
            means = self._meter.means(self._engine.device)
            for name, value in means.items():
                self._progress.curve.append(Point(step=step, name=name, value=value))
            self._logs.log(step, {**means, **self._pace()})
        is_due = self._is_due()
        if is_point or is_due:
            self._measure(step)
        if self._gang.rank == 0 and is_due:
            self._shown_s = time.monotonic()
            pace = self._pace()
            audio_h_per_h = pace.pop("audio_h_per_h")
            measures = self._newest() | pace
            shown = {
                "done": step,
                "total": self._total_steps,
                "audio_h_per_h": audio_h_per_h,
                "measures": {name: float(f"{value:.4g}") for name, value in measures.items()},
            }
            path = f"{self._job.key.prefix}/_progress.json"
            self._job.store.put(path, canonical_json(shown).encode())

    def _measure(self, step: int) -> None:
        """What the cluster's metrics show; of a hung training they stay what they were."""
        if self._gang.rank != 0:
            return
        counts = {
            "updates_done": step,
            "updates_planned": self._total_steps,
            "updates_skipped": len(self._progress.skipped_at),
            "checkpoint_time_s": self._uploader.sealed_s,
        }
        self._gang.measure({**self._newest(), **self._pace(), **counts})

    def _newest(self) -> dict[str, float]:
        """The last value of each of the curve's measures."""
        return {p.name: p.value for p in self._progress.curve}

    def _pace(self) -> dict[str, float]:
        """Of this attempt so far: how fast it learns, and for which share of the time it waited."""
        elapsed_s = time.monotonic() - self._began_s
        audio_s = self._gang.world_size * self._heard_s / SAMPLE_RATE_HZ
        return {
            "audio_h_per_h": audio_s / elapsed_s,
            "data_wait_share": self._waited_s / elapsed_s,
            "checkpoint_stall_share": self._uploader.stalled_s / elapsed_s,
        }

    def _judge_epoch(self, epoch: int) -> None:
        """Score the selection utterances, a share on each rank; keep the weights if they are best."""
        with self._engine.whole(self._recipe.build) as model:
            uar = self._judge(model)
            self._progress.curve.append(
                Point(step=self._progress.step, name="selection_uar", value=uar)
            )
            self._logs.log(self._progress.step, {"selection_uar": uar})
            if uar > self._progress.best_uar:
                self._progress.best_uar = uar
                self._progress.best_epoch = epoch
                if self._gang.rank == 0:
                    for name, data in self._recipe.export(model).items():
                        self._job.store.put(f"{self._candidate(epoch)}/{name}", data)

    def _judge(self, model: nn.Module) -> float:
        recipe, device = self._recipe, self._engine.device
        mine = recipe.selection[self._gang.rank :: self._gang.world_size]
        confusion = None
        with torch.inference_mode():
            for batch in self._judging_batches(mine):
                true, predicted, classes = recipe.predict(model, batch.to(device))
                part = torch.from_numpy(confusion_matrix(true, predicted, classes))
                confusion = part if confusion is None else confusion + part
        gathered: list[torch.Tensor | None] = [None] * self._gang.world_size
        dist.all_gather_object(gathered, confusion)
        total = sum(part for part in gathered if part is not None)
        if not isinstance(total, torch.Tensor):
            raise WorkerError(f"{recipe.name}: no utterance to select an epoch on")
        return scores_from_confusion(total.numpy()).uar

    def _judging_batches(self, utterances: Sequence[IndexRow]) -> Iterator[Batch]:
        size = _JUDGED_UTTERANCES
        ordered = sorted(utterances, key=lambda u: (u.num_samples, u.utterance_id))
        for start in range(0, len(ordered), size):
            yield self._loader.whole(ordered[start : start + size])

    def _write_checkpoint(self, folder: Path) -> None:
        self._engine.save(folder)
        save_progress(folder, self._gang.rank, self._progress, self._meter.totals)

    def _export(self, model: nn.Module) -> None:
        best = self._progress.best_epoch
        if best is None:
            files = self._recipe.export(model)
        else:
            prefix = self._candidate(best)
            names = [e.path.removeprefix(f"{prefix}/") for e in self._job.store.list(prefix)]
            files = {name: self._job.store.read(f"{prefix}/{name}") for name in names}
        for name, data in sorted(files.items()):
            self._out.put_file(name, data)
        rows = [point.model_dump() for point in self._progress.curve]
        self._out.put_part("curves", pa.Table.from_pylist(rows, schema=CURVE_SCHEMA))
        summary = {
            "updates": self._total_steps,
            "epochs": -(-self._total_steps // self._batches_per_epoch),
            "best_epoch": best,
            "resumed_at": list(self._progress.resumed_at),
            "skipped_at": list(self._progress.skipped_at),
        }
        self._out.put_file("training.json", canonical_json({**summary}).encode())

    def _candidate(self, epoch: int) -> str:
        return f"{self._job.key.prefix}/candidates/{epoch:04d}"


def _other_shards(
    name: str, record: CheckpointRecord, world_size: int, zero_stage: int
) -> CheckpointError:
    """DeepSpeed's universal form of ZeRO 3 is none for ZeRO 1 and 2, and its optimiser differs after it."""
    return CheckpointError(
        f"{name}: the newest checkpoint was saved by {record.world_size} workers with "
        f"runtime.train.zero_stage = {record.zero_stage}, which cannot go on by {world_size} with "
        f"{zero_stage}; with 3 both must stay: set them back for this stage, or delete the run's folder "
        f"below checkpoints/ to train it from its beginning"
    )
