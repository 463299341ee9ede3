"""Where a training stands, saved beside DeepSpeed's shards as plain JSON."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from gmp_atl_dist.errors import CheckpointError

_NAME = "progress.json"
_Totals = TypeAdapter(dict[str, tuple[float, float]])


class Point(BaseModel):
    """One value of a learning curve."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int
    name: str
    value: float


class Progress(BaseModel):
    """What a resumed run needs besides the weights. ``step`` updates were taken."""

    model_config = ConfigDict(extra="forbid")

    step: int = 0
    world_size: int
    curve: list[Point] = []
    best_epoch: int | None = None
    best_uar: float = -1.0
    resumed_at: list[int] = []


def save_totals(folder: Path, rank: int, totals: dict[str, tuple[float, float]]) -> None:
    """What this rank has measured since the curve's last point."""
    (folder / f"totals-{rank}.json").write_bytes(_Totals.dump_json(totals))


def load_totals(folder: Path, rank: int) -> dict[str, tuple[float, float]]:
    """Read it back.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        return _Totals.validate_json((folder / f"totals-{rank}.json").read_bytes())
    except (OSError, ValidationError) as e:
        raise CheckpointError(
            f"the checkpoint's totals of rank {rank} cannot be read ({type(e).__name__}); delete the "
            f"run's folder below checkpoints/ to train this stage from its beginning"
        ) from e


def save_progress(folder: Path, progress: Progress) -> None:
    (folder / _NAME).write_text(progress.model_dump_json(), encoding="utf-8")


def load_progress(folder: Path, world_size: int) -> Progress:
    """Read it back.

    Raises:
        CheckpointError: it is damaged, or was written by another number of workers, whose optimiser
            shards do not fit this one's.
    """
    try:
        progress = Progress.model_validate_json((folder / _NAME).read_text(encoding="utf-8"))
    except (OSError, ValidationError) as e:
        raise CheckpointError(
            f"the checkpoint's {_NAME} cannot be read ({type(e).__name__}); delete the run's folder "
            f"below checkpoints/ to train this stage from its beginning"
        ) from e
    if progress.world_size != world_size:
        raise CheckpointError(
            f"the checkpoint at step {progress.step} was written by {progress.world_size} workers and "
            f"cannot be continued by {world_size}; set runtime.train.workers = "
            f"{progress.world_size}, or delete the run's folder below checkpoints/"
        )
    return progress
