"""One arm with one seed, while a sweep runs: its walk, its lanes, its record."""

from __future__ import annotations

import time
from dataclasses import dataclass

from gmp_atl_dist.config.sweep import SweepRun
from gmp_atl_dist.runs.recorder import RunRecorder
from gmp_atl_dist.scheduling.demands import Held
from gmp_atl_dist.scheduling.lanes import Lane
from gmp_atl_dist.scheduling.walks import MethodRun
from gmp_atl_dist.stages.base import Stage
from gmp_atl_dist.store.artifact import Artifact


class MadeArtifacts:
    """Observes a run; keeps its artefacts by stage and fold, and how long stages took."""

    def __init__(self) -> None:
        self.by_stage: dict[tuple[str, str], Artifact] = {}
        self.seconds: dict[str, float] = {}
        self.device_s: dict[str, float] = {}
        """Seconds times what the workers of the stages held that are done, by ``CPU`` and ``GPU``."""
        self._started_s: dict[str, float] = {}
        self._held: dict[str, Held] = {}

    def stage_found(self, stage: Stage, artifact: Artifact) -> None:
        self.by_stage[stage.name, stage.fold_name] = artifact

    def stage_started(self, stage: Stage, held: Held) -> None:
        self._started_s[stage.label] = time.monotonic()
        self._held[stage.label] = held

    def stage_done(self, stage: Stage, artifact: Artifact) -> None:
        took_s = self.seconds[stage.name] = time.monotonic() - self._started_s[stage.label]
        for device, number in self._held[stage.label].items():
            self.device_s[device] = self.device_s.get(device, 0.0) + number * took_s
        self.stage_found(stage, artifact)


@dataclass
class GridRun:
    """One arm with one seed, while the sweep runs."""

    sweep_run: SweepRun
    run: MethodRun
    made: MadeArtifacts
    recorder: RunRecorder
    cells: dict[str, Lane]
    report: Lane | None = None
    error: BaseException | None = None
    """Why it could not begin."""
    is_closed: bool = False

    @property
    def is_over(self) -> bool:
        return self.error is not None or (self.report is not None and self.report.state == "over")

    @property
    def first_error(self) -> BaseException | None:
        lanes = [*self.cells.values(), *([self.report] if self.report else [])]
        return self.error or next((lane.error for lane in lanes if lane.failed), None)

    def close(self, error: BaseException | None) -> None:
        """End the record of the run."""
        if not self.is_closed:
            self.is_closed = True
            self.recorder.__exit__(None if error is None else type(error), error, None)
