"""The state of a training: saved beside DeepSpeed's shards, uploaded in the background, and restored.

No state of a random generator is saved: order, crops, masks and dropout follow from the seed and the
number of the update.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch.distributed as dist
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from gmp_atl_dist.errors import CheckpointError
from gmp_atl_dist.store.checkpoints import CheckpointRecord, Checkpoints
from gmp_atl_dist.training.universal import make_universal

_log = logging.getLogger(__name__)

_STATE = "state.json"
_KEPT = 2
_Totals = TypeAdapter(dict[str, tuple[float, float]])
_Records = TypeAdapter(list[CheckpointRecord])


class CurvePoint(BaseModel):
    """One value of a learning curve."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int
    name: str
    value: float


class TrainingState(BaseModel):
    """What a resumed run needs beside the weights. ``step`` is the number of updates so far."""

    model_config = ConfigDict(extra="forbid")

    step: int = 0
    curve: list[CurvePoint] = []
    best_epoch: int | None = None
    best_uar: float = -1.0
    skipped_at: list[int] = []
    resumed_at: list[int] = []
    pass_s: float = 0.0
    """Micro-batches are joined into passes of at most so many seconds of audio; 0: they are not."""


def save_state(
    folder: Path, rank: int, state: TrainingState, totals: dict[str, tuple[float, float]]
) -> None:
    """Write the state. ``totals`` are this rank's (sum, count) pairs since the last point of the curve."""
    (folder / f"totals-{rank}.json").write_bytes(_Totals.dump_json(totals))
    if rank == 0:
        (folder / _STATE).write_text(state.model_dump_json(), encoding="utf-8")


def load_state(
    folder: Path, rank: int, world_size: int
) -> tuple[TrainingState, dict[str, tuple[float, float]]]:
    """Read the state, and the sum of the totals of the ranks whose number is ``rank`` modulo ``world_size``.

    Raises:
        CheckpointError: it is damaged.
    """
    totals: dict[str, tuple[float, float]] = {}
    try:
        state = TrainingState.model_validate_json((folder / _STATE).read_bytes())
        for path in sorted(folder.glob("totals-*.json")):
            if int(path.stem.removeprefix("totals-")) % world_size != rank:
                continue
            for name, (total, count) in _Totals.validate_json(path.read_bytes()).items():
                before = totals.get(name, (0.0, 0.0))
                totals[name] = (before[0] + total, before[1] + count)
    except (OSError, ValueError, ValidationError) as e:
        raise CheckpointError(
            f"the checkpoint's training state cannot be read ({type(e).__name__}); delete the "
            f"run's folder below checkpoints/ to train this stage from its start"
        ) from e
    return state, totals


def find_checkpoint(
    checkpoints: Checkpoints, local: Path, *, rank: int, node_leader: bool, node: int
) -> tuple[CheckpointRecord, Path] | None:
    """The newest complete checkpoint, fetched once per node. Every rank must call it.

    An incomplete or damaged one is skipped with a message, and deleted when ``checkpoints`` seals the next
    one. None if no complete one exists.
    """
    held: list[object] = [None]
    if rank == 0:
        held = [_Records.dump_json(checkpoints.sealed()).decode()]
    dist.broadcast_object_list(held, src=0)
    for record in _Records.validate_json(str(held[0])):
        folder = local / "restored"
        problem = ""
        if node_leader:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            try:
                checkpoints.fetch(record, folder)
            except CheckpointError as e:
                problem = str(e)
        said = _gathered((node, str(folder) if node_leader else "", problem))
        problems = [text for _, _, text in said if text]
        if not problems:
            return record, next(Path(path) for n, path, _ in said if n == node and path)
        if rank == 0:
            _log.warning("checkpoint %s is skipped: %s", record.folder, problems[0])
            checkpoints.pass_over(record.folder)
    return None


def universal_form(folder: Path, local: Path, *, node_leader: bool, node: int) -> Path:
    """The checkpoint for any number of ranks, made once per node. Every rank must call it.

    Raises:
        CheckpointError: it cannot be read; on every rank.
    """
    out, problem = local / "universal", ""
    if node_leader:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        try:
            make_universal(folder, out)
        except CheckpointError as e:
            problem = e.message
    said = _gathered((node, str(out) if node_leader else "", problem))
    for _, _, text in said:
        if text:
            raise CheckpointError(text)
    return next(Path(path) for n, path, _ in said if n == node and path)


def _gathered(mine: tuple[int, str, str]) -> list[tuple[int, str, str]]:
    said: list[tuple[int, str, str] | None] = [None] * dist.get_world_size()
    dist.all_gather_object(said, mine)
    return [s for s in said if s is not None]


class Uploader:
    """Saves to a folder of this machine, and uploads while training continues.

    Attributes:
        stalled_s: for how long training waited for checkpoints.
        sealed_s: the Unix time at which rank 0 sealed its last checkpoint, or started.
    """

    def __init__(
        self, checkpoints: Checkpoints, local: Path, *, rank: int, world_size: int, zero_stage: int
    ) -> None:
        self._checkpoints = checkpoints
        self._local = local
        self._rank = rank
        self._world_size = world_size
        self._zero_stage = zero_stage
        attempt: list[object] = [format(time.time_ns(), "x")]
        dist.broadcast_object_list(attempt, src=0)
        self._attempt = str(attempt[0])
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._upload: Future[None] | None = None
        self._folder, self._step = "", 0
        self.stalled_s = 0.0
        self.sealed_s = time.time()

    @property
    def uploading(self) -> bool:
        """Whether a checkpoint was saved and is not sealed yet. The same on every rank."""
        return bool(self._folder)

    @property
    def uploaded(self) -> bool:
        """Whether this rank has uploaded its share.

        Raises:
            ArtifactError: the upload failed.
        """
        if self._upload is None or not self._upload.done():
            return False
        self._upload.result()
        return True

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """``write`` this rank's share into a folder, and start its upload. No other upload may be running."""
        started_s = time.monotonic()
        self._folder, self._step = f"{step:08d}-{self._attempt}", step
        local = Path(tempfile.mkdtemp(dir=self._local, prefix="saved-"))
        write(local)
        self._upload = self._pool.submit(self._put, self._folder, local)
        self.stalled_s += time.monotonic() - started_s

    def seal(self) -> int:
        """Call it when every rank has uploaded: rank 0 writes the record. Returns the checkpoint's update."""
        folder, step = self._folder, self._step
        self._folder, self._upload = "", None
        if self._rank == 0:
            self._pool.submit(self._seal, folder, step)
        return step

    def finish(self) -> int:
        """As :meth:`seal`, but waits for all uploads and for the record. Every rank must call it."""
        started_s = time.monotonic()
        if self._upload is not None:
            self._upload.result()
        dist.barrier()
        step = self.seal()
        self._pool.submit(int).result()  # one thread: what was submitted before it is done
        dist.barrier()
        self.stalled_s += time.monotonic() - started_s
        return step

    def close(self) -> None:
        self._pool.shutdown(wait=True)

    def _put(self, folder: str, local: Path) -> None:
        try:
            self._checkpoints.upload(folder, local, rank=self._rank)
        finally:
            shutil.rmtree(local, ignore_errors=True)

    def _seal(self, folder: str, step: int) -> None:
        try:
            dropped = self._checkpoints.seal(
                folder,
                step=step,
                world_size=self._world_size,
                zero_stage=self._zero_stage,
                keep=_KEPT,
            )
            self.sealed_s = time.time()
            for name in dropped:
                _log.warning(
                    "checkpoint %s was skipped, and is deleted: %s is sealed", name, folder
                )
        except (
            Exception
        ) as e:  # without its record, the checkpoint is never read; the next may succeed
            _log.warning("checkpoint %s was not sealed: %s", folder, e)
