"""What a training saves: checkpoints while it runs, and the files of its artefact at its end."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pyarrow as pa
from torch import nn

from gmp_atl_dist.config import canonical_json
from gmp_atl_dist.errors import CheckpointError
from gmp_atl_dist.records import CURVE_SCHEMA
from gmp_atl_dist.runtime.work import Gang
from gmp_atl_dist.store.checkpoints import CheckpointRecord
from gmp_atl_dist.store.writer import ArtifactWriter
from gmp_atl_dist.training.batches import BatchLoader
from gmp_atl_dist.training.best_epoch import BestEpoch
from gmp_atl_dist.training.checkpoint import (
    TrainingState,
    Uploader,
    find_checkpoint,
    load_state,
    save_state,
    universal_form,
)
from gmp_atl_dist.training.engine import Engine
from gmp_atl_dist.training.job import TrainJob
from gmp_atl_dist.training.meter import Meter
from gmp_atl_dist.training.pass_size import measured_pass_s, settled_pass_s
from gmp_atl_dist.training.ranks import HostGroup
from gmp_atl_dist.training.timing import Interval


class Saver:
    """Restores the engine, saves checkpoints, and writes the artefact. Every rank has one.

    Attributes:
        state: what a resumed run needs beside the weights.
        uploader: of checkpoints.
        interval: due when the next checkpoint is, by the clock.
    """

    def __init__(self, job: TrainJob, gang: Gang, local: Path) -> None:
        """Every rank must call it. ``local`` is a folder of this rank alone."""
        self._job = job
        self._gang = gang
        self._local = local
        self._out = ArtifactWriter(job.store, job.key)
        self._best = BestEpoch(job.store, job.key)
        self.state = TrainingState()
        self._checkpoints = job.checkpoints
        self.uploader = Uploader(
            self._checkpoints,
            local,
            rank=gang.rank,
            world_size=gang.world_size,
            zero_stage=job.workers.zero_stage,
        )
        every_s = 60 * job.workers.checkpoint_every_min
        self.interval = Interval(every_s, due_at_first=False)

    def restored_engine(self, meter: Meter, loader: BatchLoader, group: HostGroup) -> Engine:
        """The engine, in the state of the newest complete checkpoint if there is one.

        ``meter`` is given what this rank had measured since the last point of the curve. ``loader`` is told
        how much audio a pass has, which is also in the checkpoint.

        Raises:
            CheckpointError: the checkpoint does not fit.
        """
        gang, workers, recipe = self._gang, self._job.workers, self._job.recipe
        where = {"node_leader": gang.node_leader, "node": gang.node}
        newest = find_checkpoint(self._checkpoints, self._local, rank=gang.rank, **where)
        folder, reshape = None, False
        if newest is not None:
            record, folder = newest
            self.state, totals = load_state(folder, gang.rank, gang.world_size)
            self.state.resumed_at.append(record.step)
            meter.add(totals)
            # DeepSpeed divides the optimiser by ranks, so another number needs another form of it.
            shards = (record.world_size, record.zero_stage)
            reshape = shards != (gang.world_size, workers.zero_stage)
            if reshape and 3 in (record.zero_stage, workers.zero_stage):
                raise _other_shards(recipe.name, record, gang.world_size, workers.zero_stage)
            if reshape:
                folder = universal_form(folder, self._local, **where)
        model = recipe.build()
        backbone = recipe.backbone(model)
        if workers.gradient_checkpointing:
            backbone.checkpoint_activations()
        kept = None if newest is None else self.state.pass_s
        measure = partial(measured_pass_s, model, recipe, loader)
        self.state.pass_s = settled_pass_s(workers.pass_s, kept, measure, group)
        loader.join(self.state.pass_s)
        engine = Engine(
            model, backbone, recipe.optim, workers, passes=loader.passes, universal=reshape
        )
        if folder is not None:
            engine.restore(folder)
        return engine

    def save(self, engine: Engine, meter: Meter) -> None:
        """Start a checkpoint of the updates so far. Waits for the upload of the one before it."""
        if self.uploader.uploading:
            self._gang.report(self.uploader.finish())

        def write(folder: Path) -> None:
            engine.save(folder)
            save_state(folder, self._gang.rank, self.state, meter.totals)

        self.uploader.save(self.state.step, write)
        self.interval.restart()

    def seal_if(self, uploaded: bool) -> None:
        """Seal the running checkpoint if every rank has uploaded its share."""
        if self.uploader.uploading and uploaded:
            self._gang.report(self.uploader.seal())

    def keep_candidate(self, epoch: int, model: nn.Module) -> None:
        """Keep what ``model`` exports as the best epoch so far. Rank 0 calls it."""
        self._best.keep(epoch, self._job.recipe.export(model))

    def export(self, model: nn.Module, *, updates: int, epochs: int) -> None:
        """Write the artefact's files, of the best epoch or of ``model``. Rank 0 calls it."""
        best = self.state.best_epoch
        files = self._job.recipe.export(model) if best is None else self._best.read(best)
        for name, data in sorted(files.items()):
            self._out.put_file(name, data)
        rows = [point.model_dump() for point in self.state.curve]
        self._out.put_part("curves", pa.Table.from_pylist(rows, schema=CURVE_SCHEMA))
        summary = {
            "updates": updates,
            "epochs": epochs,
            "best_epoch": best,
            "resumed_at": list(self.state.resumed_at),
            "skipped_at": list(self.state.skipped_at),
        }
        self._out.put_file("training.json", canonical_json({**summary}).encode())

    def close(self) -> None:
        """Wait for the upload that is running."""
        self.uploader.close()


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
