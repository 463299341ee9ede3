"""What a training tells while it runs: points of its curve, logs of metrics, progress, and gauges.

Values that are on the device are read at points of the curve alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gmp_atl_dist.runtime.work import Gang
from gmp_atl_dist.store.progress import (
    CHANCE,
    SMOOTHED_ACCURACY,
    ProgressFile,
    ProgressSnapshot,
)
from gmp_atl_dist.training.checkpoint import CurvePoint
from gmp_atl_dist.training.job import TrainJob
from gmp_atl_dist.training.meter import Meter, Smoothed
from gmp_atl_dist.training.metrics_log import open_logs
from gmp_atl_dist.training.ranks import HostGroup
from gmp_atl_dist.training.saving import Saver
from gmp_atl_dist.training.timing import TrainingPace

_CURVE_POINTS = 200
_PROGRESS_EVERY_S = 2.0


class Reporting:
    """Shows how far a training is, from its meters.

    Attributes:
        meter: metrics of the curve since its last point.
        hits: (hits, attempts) of the accuracy that is shown to people who watch.
    """

    def __init__(
        self,
        job: TrainJob,
        gang: Gang,
        local: Path,
        *,
        saver: Saver,
        meter: Meter,
        group: HostGroup,
        total_steps: int,
    ) -> None:
        self._job = job
        self._gang = gang
        self._saver = saver
        self._group = group
        self._total_steps = total_steps
        self._every = max(1, total_steps // _CURVE_POINTS)
        self.meter = meter
        self.hits = Meter()
        self._smoothed = Smoothed()
        self._first_step = saver.state.step
        self.pace = TrainingPace(gang.world_size)
        self._progress = ProgressFile(job.store, job.key, every_s=_PROGRESS_EVERY_S)
        where = {"rank": gang.rank, "after_step": self._first_step}
        self._logs = open_logs(job.store, job.key, job.workers, local, tags=job.tags, **where)

    def update_done(self, step: int) -> None:
        """Show the state after ``step`` updates. Every rank must call it after every update."""
        is_point = step % self._every == 0 or step == self._total_steps
        if is_point:
            means = self.meter.means(self._group.sums)
            for name, value in means.items():
                self._saver.state.curve.append(CurvePoint(step=step, name=name, value=value))
            self.log(step, {**means, **self._watched_accuracy(), **self._pace_metrics()})
        if is_point or self._progress.is_due:
            self.show_gauges(step)
        if self._gang.rank == 0 and self._progress.is_due:
            pace = self._pace_metrics()
            audio_h_per_h = pace.pop("audio_h_per_h")
            metrics = self._newest() | pace | self._smoothed_accuracy()
            left = self._total_steps - step
            self._progress.write(
                ProgressSnapshot(
                    done=step,
                    total=self._total_steps,
                    audio_h_per_h=audio_h_per_h,
                    ends_in_s=self.pace.ends_in_s(step - self._first_step, left),
                    metrics={name: float(f"{value:.4g}") for name, value in metrics.items()},
                )
            )

    def add_point(self, name: str, value: float) -> None:
        """Add a point to the curve after the current update, beside those of the meter."""
        step = self._saver.state.step
        self._saver.state.curve.append(CurvePoint(step=step, name=name, value=value))
        self.log(step, {name: value})

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._logs.log(step, metrics)

    def flush(self) -> None:
        """A run that resumes from a checkpoint does not log the earlier steps again."""
        self._logs.flush()

    def close(self) -> None:
        self._logs.close()

    def show_gauges(self, step: int) -> None:
        """Set the cluster's gauges. Those of a training that hangs keep their last values."""
        if self._gang.rank != 0:
            return
        counts = {
            "updates_done": step,
            "updates_planned": self._total_steps,
            "updates_skipped": len(self._saver.state.skipped_at),
            "checkpoint_time_s": self._saver.uploader.sealed_s,
        }
        self._gang.log_metrics({**self._newest(), **self._pace_metrics(), **counts})

    def _watched_accuracy(self) -> dict[str, float]:
        """The accuracy since the last point of the curve; every rank must call it at the same update."""
        found = self.hits.sums(self._group.sums)
        for total, count in found.values():
            self._smoothed.add(total, count)
        return {name: total / count for name, (total, count) in found.items() if count}

    def _smoothed_accuracy(self) -> dict[str, float]:
        if self._smoothed.mean is None:
            return {}
        chance = self._job.recipe.chance
        return {SMOOTHED_ACCURACY: self._smoothed.mean} | (
            {} if chance is None else {CHANCE: chance}
        )

    def _newest(self) -> dict[str, float]:
        """The last value of each metric of the curve."""
        return {p.name: p.value for p in self._saver.state.curve}

    def _pace_metrics(self) -> dict[str, float]:
        return self.pace.metrics(self._saver.uploader.stalled_s)
