"""The one loop that trains every stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import torch
import torch.distributed as dist

from gmp_atl_dist.config import TrainWorkersConfig, canonical_json
from gmp_atl_dist.errors import WorkerError
from gmp_atl_dist.metrics import confusion_matrix, scores_from_confusion
from gmp_atl_dist.records import CURVE_SCHEMA, StoredUtterance
from gmp_atl_dist.seeding import keyed_seed
from gmp_atl_dist.store.artifact import ArtifactKey, ArtifactWriter
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.readers import AudioReader
from gmp_atl_dist.training.batches import Batch, BatchLoader, BatchPlan, max_crop_samples
from gmp_atl_dist.training.checkpoint import (
    Point,
    Progress,
    load_progress,
    load_totals,
    save_progress,
    save_totals,
)
from gmp_atl_dist.training.engine import Engine
from gmp_atl_dist.training.meter import Meter
from gmp_atl_dist.training.recipe import Recipe

_CURVE_POINTS = 200
_PROGRESS_EVERY_S = 2.0


class Gang(Protocol):
    """What the loop needs of whoever runs it; ``runtime`` has one that is Ray Train's."""

    rank: int
    world_size: int

    def restored(self) -> Path | None: ...

    def save(self, metrics: dict[str, float], write: Callable[[Path], None]) -> None: ...


@dataclass(frozen=True)
class TrainJob:
    """All that a rank is given: what to train, and where the result goes."""

    recipe: Recipe
    store: Store
    key: ArtifactKey
    workers: TrainWorkersConfig


def run_training(job: TrainJob, gang: Gang) -> None:
    """Train to the end from wherever the newest checkpoint stands; rank 0 writes the artefact's files.

    Raises:
        WorkerError: the loss is not finite; raised on every rank at the same update.
        CheckpointError: the checkpoint does not fit.
    """
    _Trainer(job, gang).run()


class _Trainer:
    def __init__(self, job: TrainJob, gang: Gang) -> None:
        self._job = job
        self._gang = gang
        self._recipe = recipe = job.recipe
        self._config = recipe.optim
        self._reader = AudioReader(recipe.corpus)
        plan = BatchPlan(recipe.utterances, self._config.batch_size, self._config.seed)
        self._batches_per_epoch = plan.batches_per_epoch
        self._total_steps = (
            self._config.steps
            if self._config.steps is not None
            else (self._config.epochs or 0) * plan.batches_per_epoch
        )
        self._loader = BatchLoader(
            plan,
            recipe.utterances,
            self._reader,
            rank=gang.rank,
            world_size=gang.world_size,
            batch_size=self._config.batch_size,
            micro_batch_size=job.workers.micro_batch_size,
            max_samples=max_crop_samples(self._config.max_utterance_s),
            seed=self._config.seed,
        )
        self._engine = Engine(
            recipe.build(),
            self._config,
            job.workers,
            micro_batch_size=self._loader.micro_batch_size,
            micro_batches=self._loader.micro_batches,
        )
        self._out = ArtifactWriter(job.store, job.key)
        self._meter = Meter(gang.world_size)
        self._shown_s = 0.0
        self._progress = Progress(world_size=gang.world_size)
        restored = gang.restored()
        if restored is not None:
            self._progress = load_progress(restored, gang.world_size)
            self._progress.resumed_at.append(self._progress.step)
            self._meter.add(load_totals(restored, gang.rank))
            self._engine.restore(restored)

    def run(self) -> None:
        progress, every = self._progress, self._job.workers.checkpoint_every_steps
        self._engine.module.train()
        for step, batches in self._loader.updates(progress.step, self._total_steps):
            self._update(step, batches)
            progress.step = step + 1
            self._log(step + 1)
            if self._recipe.selection and progress.step % self._batches_per_epoch == 0:
                self._judge_epoch(progress.step // self._batches_per_epoch)
            if progress.step % every == 0 and progress.step < self._total_steps:
                self._gang.save({"step": float(progress.step)}, self._write_checkpoint)
        if self._gang.rank == 0:
            self._export()
        # Nobody leaves before the files are there: a gang is done when all of it is.
        dist.barrier()

    def _update(self, step: int, batches: list[Batch]) -> None:
        engine, recipe = self._engine, self._recipe
        engine.set_learning_rate(step, self._total_steps)
        counts = torch.tensor([recipe.counts(batch) for batch in batches], dtype=torch.float64)
        counts = counts.sum(dim=0).to(engine.device)
        dist.all_reduce(counts)
        scale = self._gang.world_size * len(batches)  # DeepSpeed takes the mean over both
        for i, batch in enumerate(batches):
            torch.manual_seed(keyed_seed("dropout", self._config.seed, step, self._gang.rank, i))
            losses = recipe.losses(engine.forward, batch.to(engine.device))
            loss = torch.zeros((), device=engine.device)
            for factor, total, count in zip(
                recipe.factors, losses.sums, counts.tolist(), strict=True
            ):
                loss = loss + total * (factor / max(count, 1e-12))
            self._stop_unless_finite(step, loss, batch)
            self._meter.add({**losses.measures, "loss": (float(loss.detach()), 0.0)})
            engine.backward_and_step(loss * scale)
        self._meter.count_update()

    def _stop_unless_finite(self, step: int, loss: torch.Tensor, batch: Batch) -> None:
        bad = torch.tensor([0.0 if torch.isfinite(loss) else 1.0], device=self._engine.device)
        dist.all_reduce(bad)
        if bad.item():
            ids = ", ".join(u.utterance_id for u in batch.utterances[:8])
            raise WorkerError(
                f"{self._recipe.name}: the loss is not finite at update {step} on "
                f"{int(bad.item())} of {self._gang.world_size} workers (this one's batch: {ids} ...); "
                f"lower {self._recipe.name}.lr or raise {self._recipe.name}.warmup_fraction"
            )

    def _log(self, step: int) -> None:
        every = max(1, self._total_steps // _CURVE_POINTS)
        if step % every == 0 or step == self._total_steps:
            for name, value in self._meter.means(self._engine.device).items():
                self._progress.curve.append(Point(step=step, name=name, value=value))
        now_s = time.monotonic()
        if self._gang.rank == 0 and now_s - self._shown_s >= _PROGRESS_EVERY_S:
            self._shown_s = now_s
            last = {p.name: round(p.value, 4) for p in self._progress.curve[-6:]}
            text = canonical_json({"done": step, "total": self._total_steps, "measures": {**last}})
            self._job.store.put(f"{self._job.key.prefix}/_progress.json", text.encode())

    def _judge_epoch(self, epoch: int) -> None:
        """Score the selection utterances, a share on each rank; keep the weights if they are best."""
        engine, recipe = self._engine, self._recipe
        engine.module.eval()
        mine = recipe.selection[self._gang.rank :: self._gang.world_size]
        confusion = None
        with torch.inference_mode():
            for batch in self._judging_batches(mine):
                true, predicted, classes = recipe.predict(engine.module, batch.to(engine.device))
                part = torch.from_numpy(confusion_matrix(true, predicted, classes))
                confusion = part if confusion is None else confusion + part
        engine.module.train()
        gathered: list[torch.Tensor | None] = [None] * self._gang.world_size
        dist.all_gather_object(gathered, confusion)
        total = sum(part for part in gathered if part is not None)
        if not isinstance(total, torch.Tensor):
            raise WorkerError(f"{recipe.name}: no utterance to select an epoch on")
        uar = scores_from_confusion(total.numpy()).uar
        self._progress.curve.append(
            Point(step=self._progress.step, name="selection_uar", value=uar)
        )
        if uar > self._progress.best_uar:
            self._progress.best_uar = uar
            self._progress.best_epoch = epoch
            if self._gang.rank == 0:
                for name, data in recipe.export(engine.module).items():
                    self._job.store.put(f"{self._candidate(epoch)}/{name}", data)

    def _judging_batches(self, utterances: Sequence[StoredUtterance]) -> Iterator[Batch]:
        size = self._loader.micro_batch_size
        ordered = sorted(utterances, key=lambda u: (u.num_samples, u.utterance_id))
        for start in range(0, len(ordered), size):
            yield self._loader.whole(ordered[start : start + size])

    def _write_checkpoint(self, folder: Path) -> None:
        self._engine.save(folder)
        save_totals(folder, self._gang.rank, self._meter.totals)
        if self._gang.rank == 0:
            save_progress(folder, self._progress)

    def _export(self) -> None:
        best = self._progress.best_epoch
        if best is None:
            files = self._recipe.export(self._engine.module)
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
        }
        self._out.put_file("training.json", canonical_json({**summary}).encode())

    def _candidate(self, epoch: int) -> str:
        return f"{self._job.key.prefix}/candidates/{epoch:04d}"
