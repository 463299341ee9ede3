"""Where a whole run stands: the stage and the fold of how many, and when all of it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gmp_atl_dist import pipeline
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.progress_rows import about, duration, run_wordings
from gmp_atl_dist.runs.estimate import Planned, Rates, earlier_rates, plan_of
from gmp_atl_dist.runs.expected import expectation, rate_of, training_flops
from gmp_atl_dist.runtime import cluster_nodes
from gmp_atl_dist.scheduling.demands import Held
from gmp_atl_dist.stage_order import planned_stages
from gmp_atl_dist.stages.base import Context, Handle, Pending, Stage
from gmp_atl_dist.store.artifact import Artifact, find_artifact
from gmp_atl_dist.store.checkpoints import Checkpoints
from gmp_atl_dist.store.writer import ArtifactWriter

Clock = Callable[[], float]

_CORPUS, _LAST_SHARED = ("combine", "ingest"), "backbone"
"""When these are done, all stages of the run have a fingerprint, so that those done before are known."""


@dataclass(frozen=True)
class _Running:
    """A stage that is under way; ``whole``: no earlier attempt had begun it."""

    stage: Stage
    started_s: float
    whole: bool


class RunProgress:
    """Observes a run (``scheduling.walks.RunObserver``), and describes it (``board.WholeRun``)."""

    def __init__(self, config: RunConfig, context: Context, clock: Clock = time.monotonic) -> None:
        self._config = config
        self._context = context
        self._clock = clock
        self._names = [(stage.name, bool(stage.fold_name)) for stage in planned_stages(config)]
        self._rates: Rates = earlier_rates(context.store, config)
        self._shared: dict[str, Artifact] = {}
        """Artefacts that all folds share, by the name of their stage."""
        self._folds: tuple[str, ...] = ()
        self._left: list[Planned] = []
        """Stages that are still to be run, the present one included. Empty until they are known."""
        self._running: dict[str, _Running] = {}
        """Stages that are under way, by label."""

    def stage_found(self, stage: Stage, artifact: Artifact) -> None:
        self._over(stage, artifact)

    def stage_started(self, stage: Stage, held: Held) -> None:
        # What an earlier attempt had begun takes less than a whole stage.
        store, key = self._context.store, stage.key
        begun = ArtifactWriter(store, key).done() or Checkpoints(store, key.fingerprint).sealed()
        self._running[stage.label] = _Running(stage, self._clock(), whole=not begun)
        if not self._reporter.is_terminal:
            self._reporter.line(self.run_lines(None)[0])
        planned = next((p for p in self._left if p.label == stage.label), None)
        if planned is not None and planned.runs_the_model:
            self._reporter.line(self._expectation(planned, held, whole=not begun))

    def stage_done(self, stage: Stage, artifact: Artifact) -> None:
        running = self._running.pop(stage.label, None)
        if running is not None and running.whole:
            took_s = self._rates.here_s[stage.name] = self._clock() - running.started_s
            self._note_pace(stage, took_s)
        self._over(stage, artifact)

    def _expectation(self, planned: Planned, held: Held, *, whole: bool) -> str:
        """What is expected of a stage: hours, share of the GPU's rate, cost; or that it is not known."""
        seconds, flops, rate = self._rates.seconds(planned), None, None
        if seconds is not None and planned.is_trained and held.get("GPU"):
            corpus = next(self._shared[name] for name in _CORPUS if name in self._shared)
            backbone = self._shared[_LAST_SHARED]
            flops = training_flops(self._config, planned, backbone, corpus)
            self._context.connection.open()  # the stage is about to do the same
            rate = rate_of(cluster_nodes())
        price = self._context.settings.price
        before = self._rates.held(planned)
        return expectation(
            *(planned.label, seconds, held, price),
            whole=whole,
            before=before,
            flops=flops,
            rate=rate,
        )

    def stage_line(self) -> str:
        now_s = self._clock()
        return ", ".join(
            f"{label} running for {duration(now_s - running.started_s)}"
            for label, running in list(self._running.items())
        )

    def run_lines(self, stage_ends_in_s: float | None) -> Sequence[str]:
        running = list(self._running.values())
        stage, names = running[-1].stage if running else None, [name for name, _ in self._names]
        of_stages = of_folds = None
        if stage is not None and stage.name in names:
            of_stages = (names.index(stage.name) + 1, len(names))
        if stage is not None and stage.fold_name in self._folds:
            of_folds = (self._folds.index(stage.fold_name) + 1, len(self._folds))
        seconds, unknown = self.left(stage_ends_in_s)
        known = bool(self._left) and (seconds > 0 or not unknown)
        return run_wordings(of_stages, of_folds, seconds if known else None, at_least=bool(unknown))

    def left(self, stage_ends_in_s: float | None = None) -> tuple[float, list[str]]:
        """Seconds to the end of the run, and the names of the stages that have no estimate.

        ``stage_ends_in_s`` is the expected end of the stage that was started last, by its own pace. Where
        several stages run at the same time, as many are expected to do so until the end.
        """
        running = dict(self._running)
        newest = next(reversed(running.values()), None)
        if newest is not None and newest.whole and stage_ends_in_s is not None:
            # Its own pace tells about stages that were never measured.
            self._note_pace(newest.stage, self._clock() - newest.started_s + stage_ends_in_s)
        seconds, unknown = 0.0, []
        for planned in self._left:
            now = running.get(planned.label)
            expected_s = self._rates.seconds(planned)
            if now is not None and now is newest and stage_ends_in_s is not None:
                seconds += stage_ends_in_s
            elif expected_s is None:
                unknown.append(planned.name)
            elif now is not None:
                seconds += max(0.0, expected_s - (self._clock() - now.started_s))
            else:
                seconds += expected_s
        return seconds / max(1, len(running)), list(dict.fromkeys(unknown))

    @property
    def _reporter(self) -> Reporter:
        return self._context.reporter

    def _note_pace(self, stage: Stage, whole_s: float) -> None:
        for planned in self._left:
            if planned.label == stage.label:
                self._rates.note_pace(planned, whole_s)

    def _over(self, stage: Stage, artifact: Artifact) -> None:
        self._left = [planned for planned in self._left if planned.label != stage.label]
        if not stage.fold_name:
            self._shared[stage.name] = artifact
        corpus = next((self._shared[name] for name in _CORPUS if name in self._shared), None)
        if stage.name == _LAST_SHARED and corpus is not None:
            self._plan(corpus)
            self._announce()

    def _plan(self, corpus: Artifact) -> None:
        done: set[str] = set()

        def look(stage: Stage) -> Handle:
            if stage.name in self._shared:
                # Its fingerprint would list the recordings again.
                done.add(stage.label)
                return self._shared[stage.name]
            artifact = find_artifact(self._context.store, stage.key)
            if artifact is not None:
                done.add(stage.label)
            return artifact or Pending(stage)

        folds: list[Fold] = []

        def noted(config: RunConfig, corpus: Artifact) -> Sequence[Fold]:
            folds.extend(pipeline.configured_folds(config, corpus))
            return folds

        pipeline.method(self._config, self._context.source, look, noted)
        self._folds = tuple(fold.name for fold in folds)
        plan = plan_of(self._config, self._names, corpus, folds)
        self._left = [planned for planned in plan if planned.label not in done]

    def _announce(self) -> None:
        if not self._left:
            return
        seconds, unknown = self.left()
        folds = f" in {len(self._folds)} folds" if len(self._folds) > 1 else ""
        stages = "1 stage" if len(self._left) == 1 else f"{len(self._left)} stages"
        count = f"{stages} to run{folds}"
        if not unknown:
            text = f"{count}: {about(seconds)}, by what stages took before below this root"
        else:
            known = f"more than {about(seconds).removeprefix('about ')}; " if seconds else ""
            text = (
                f"{count}: {known}no measured rate yet for {', '.join(unknown)}; each gets an estimate "
                f"as soon as it shows its pace"
            )
        self._reporter.line(text)
