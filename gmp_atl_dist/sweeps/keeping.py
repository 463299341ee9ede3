"""Keeps ``sweep.json`` while a sweep runs, and says where it stands."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Sequence
from typing import Self

from gmp_atl_dist.config.sweep import Sweep
from gmp_atl_dist.errors import ArtifactError, GmpAtlError, StoppedError
from gmp_atl_dist.metrics import confusion_matrix, scores_from_confusion
from gmp_atl_dist.progress_rows import about
from gmp_atl_dist.redaction import without_secrets
from gmp_atl_dist.runs.facts import this_command, this_machine, versions
from gmp_atl_dist.scheduling.lanes import Lane, Lanes, NotRunError
from gmp_atl_dist.scheduling.room import Offers
from gmp_atl_dist.stages.base import Context
from gmp_atl_dist.stages.evaluate import read_predictions
from gmp_atl_dist.stages.report import JSON_NAME
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.readers import read_emotions
from gmp_atl_dist.store.run_state import SEEN_EVERY_S
from gmp_atl_dist.store.runs import Attempt
from gmp_atl_dist.sweeps.grid import GridRun
from gmp_atl_dist.sweeps.planning import SweepPlan
from gmp_atl_dist.sweeps.record import (
    CellState,
    GridCell,
    RunReport,
    SweepRecord,
    read_sweep,
    write_sweep,
)

_LOOK_EVERY_S = 1.0
_LONGEST_MESSAGE = 2000


class SweepKeeper:
    """Looks at the lanes every second, and puts the record when a state changed, and every 15 s."""

    def __init__(
        self, sweep: Sweep, context: Context, grid: Sequence[GridRun], folds: tuple[str, ...]
    ) -> None:
        """``folds`` are those of the listing; empty where they are known after ``ingest`` alone."""
        self._sweep, self._context, self._grid = sweep, context, grid
        self._folds = folds
        self._plan: SweepPlan | None = None
        self._lanes: Lanes | None = None
        self._evaluated_before: frozenset[str] = frozenset()
        self._side_by_side: tuple[Offers | None, float] | None = None
        self._scores: dict[str, tuple[int, dict[str, float]]] = {}
        self._pooled: dict[str, dict[str, float]] = {}
        self._said: dict[str, CellState] = {}
        now_s = time.time()
        settings = context.settings
        address = settings.ray_address or os.environ.get("RAY_ADDRESS") or ""
        self._attempt = Attempt(
            started_s=now_s,
            seen_s=now_s,
            pid=os.getpid(),
            command=this_command(),
            machine=this_machine(address, gpus=False),
            versions=versions(),
        )
        self._before: tuple[Attempt, ...] = ()
        self._hours_before: dict[str, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sweep-record", daemon=True)
        self._writing = threading.RLock()
        self.record = self._now()

    def __enter__(self) -> Self:
        try:
            before = read_sweep(self._context.store, self._sweep.name)
        except ArtifactError as e:
            before = None
            self._context.reporter.warning(f"{e}")
        if before is not None:
            self._before, self._hours_before = before.attempts, before.device_hours
        self._put()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, *_: object
    ) -> None:
        self._over.set()
        self._thread.join()
        failed = error is not None or any(m.first_error is not None for m in self._grid)
        stopped = isinstance(error, StoppedError | KeyboardInterrupt | SystemExit)
        update = {
            "state": "stopped" if stopped else "failed" if failed else "done",
            "ended_s": time.time(),
            "seen_s": time.time(),
            "message": "" if error is None else without_secrets(str(error))[:_LONGEST_MESSAGE],
        }
        self._attempt = self._attempt.model_copy(update=update)
        self._put()

    def planned(self, plan: SweepPlan, lanes: Lanes) -> None:
        """All stages are known: say how many are left. ``lanes`` will run them."""
        self._plan, self._lanes = plan, lanes
        self._evaluated_before = plan.evaluated
        done, cells = len(plan.stages) - len(plan.to_run), len(plan.evaluated)
        self._context.reporter.line(
            f"sweep {self._sweep.name}: {len(self._now().cells)} cells, {cells} of them done before; "
            f"{len(plan.stages)} unique stages of {plan.asked}, {done} of them done before, "
            f"{len(plan.to_run)} to run"
        )

    def _watch(self) -> None:
        put_s = time.monotonic()
        while not self._over.wait(_LOOK_EVERY_S):
            now = self._now()
            changed = now.cells != self.record.cells or now.reports != self.record.reports
            if changed or time.monotonic() - put_s >= SEEN_EVERY_S:
                self._put()
                put_s = time.monotonic()
            for member in self._grid:
                if member.is_over and not member.is_closed:
                    member.close(member.first_error)

    def _put(self) -> None:
        with self._writing:
            if self._attempt.ended_s is None:
                self._attempt = self._attempt.model_copy(update={"seen_s": time.time()})
            self.record = self._now()
            try:
                write_sweep(self._context.store, self.record)
            except GmpAtlError as e:  # a sweep must not fail because of its description
                self._context.reporter.warning(f"the record of the sweep was not written: {e}")
            for cell in self.record.cells:
                self._say(cell)

    def _say(self, cell: GridCell) -> None:
        if cell.state == self._said.get(cell.name) or cell.state not in ("done", "failed"):
            return
        self._said[cell.name] = cell.state
        if cell.evaluate in self._evaluated_before:
            return
        done, total = self.record.count("done"), len(self.record.cells)
        if cell.state == "failed":
            self._context.reporter.warning(
                f"cell {cell.name} failed in {cell.stage or 'its beginning'}: {cell.message}"
            )
        else:
            uar = 100 * cell.scores.get("uar", float("nan"))
            self._context.reporter.line(
                f"cell {cell.name}: UAR {uar:.1f} %; {done} of {total} cells done{self._end()}"
            )

    def _end(self) -> str:
        ends_s = self.record.ends_s
        return "" if ends_s is None else f", sweep ends in {about(max(0.0, ends_s - time.time()))}"

    def _now(self) -> SweepRecord:
        sweep = self._sweep
        folds = next(
            (tuple(f.name for f in m.run.folds) for m in self._grid if m.run.folds), self._folds
        )
        cells = [self._cell(member, fold) for fold in folds for member in self._grid]
        reports = [self._report(m) for m in self._grid if m.run.report is not None]
        return SweepRecord(
            name=sweep.name,
            file=sweep.file,
            fingerprint=sweep.fingerprint,
            arms=sweep.arms,
            seeds=sweep.seeds,
            folds=folds,
            cells=tuple(cells),
            reports=tuple(r for r in reports if r is not None),
            attempts=(*self._before, self._attempt),
            ends_s=self._ends_s(),
            device_hours=self._device_hours(),
            prices=self._context.settings.price.per_hour,
            currency=self._context.settings.price.currency,
        )

    def _device_hours(self) -> dict[str, float]:
        """Of stages that this attempt and earlier ones have done."""
        hours = dict(self._hours_before)
        for member in self._grid:
            for device, seconds in dict(member.made.device_s).items():
                hours[device] = hours.get(device, 0.0) + seconds / 3600
        return hours

    def _ends_s(self) -> float | None:
        """Expected end, by the durations of this sweep's stages and of earlier ones.

        None before the nodes are known: how many stages run at a time follows from them, as in a dry run.
        """
        plan, lanes = self._plan, self._lanes
        if plan is None or lanes is None or not lanes.knows_nodes:
            return None
        measured: dict[str, float] = {}
        made: set[str] = set()
        for member in self._grid:
            measured |= member.made.seconds
            made |= {a.key.fingerprint for a in list(member.made.by_stage.values())}
        left_s = 0.0
        for stage in plan.to_run:
            if stage.key.fingerprint in made:
                continue
            seconds = measured.get(stage.label.partition(" ")[0], stage.seconds)
            if seconds is None:
                return None
            left_s += seconds
        offers = lanes.offers
        # Once for each set of nodes, because the stages are many.
        if self._side_by_side is None or self._side_by_side[0] != offers:
            self._side_by_side = offers, plan.side_by_side(offers)
        return time.time() + left_s / self._side_by_side[1]

    def _cell(self, member: GridRun, fold: str) -> GridCell:
        run, lane = member.sweep_run, member.cells.get(fold)
        found = {name: member.made.by_stage.get((name, fold)) for name in ("evaluate", "finetune")}
        evaluated = found["evaluate"]
        utterances, scores = (0, {}) if evaluated is None else self._scored(member, evaluated)
        error = member.error if lane is None else lane.error
        state, message = _state_of(lane, error, is_evaluated=evaluated is not None)
        stage = ""
        if lane is not None and state in ("running", "failed"):
            tags = member.run.last_tags.get(lane.name)
            stage = "" if tags is None else tags.stage
        return GridCell(
            arm=run.arm,
            fold=fold,
            seed=run.seed,
            run=member.run.config.runtime.run_name,
            state=state,
            stage=stage,
            message=message,
            evaluate="" if evaluated is None else evaluated.key.fingerprint,
            finetune="" if (a := found["finetune"]) is None else a.key.fingerprint,
            utterances=utterances,
            scores=scores,
        )

    def _scored(self, member: GridRun, evaluated: Artifact) -> tuple[int, dict[str, float]]:
        fingerprint = evaluated.key.fingerprint
        if fingerprint not in self._scores:
            corpus = member.run.shared.get("combine") or member.run.shared["ingest"]
            classes = list(read_emotions(corpus))
            predictions = read_predictions(evaluated)
            true = [classes.index(p.emotion) for p in predictions]
            predicted = [classes.index(p.predicted) for p in predictions]
            scores = scores_from_confusion(confusion_matrix(true, predicted, len(classes)))
            self._scores[fingerprint] = (
                len(predictions),
                {"war": float(scores.war), "uar": float(scores.uar)},
            )
        return self._scores[fingerprint]

    def _report(self, member: GridRun) -> RunReport | None:
        report = member.run.report
        if report is None:
            return None
        fingerprint = report.key.fingerprint
        if fingerprint not in self._pooled:
            scores = json.loads(report.read_file(JSON_NAME))["pooled"]["outcome"]["scores"]
            self._pooled[fingerprint] = {name: float(scores[name]) for name in ("war", "uar")}
        return RunReport(
            arm=member.sweep_run.arm,
            seed=member.sweep_run.seed,
            run=member.run.config.runtime.run_name,
            fingerprint=fingerprint,
            scores=self._pooled[fingerprint],
        )


def _state_of(
    lane: Lane | None, error: BaseException | None, *, is_evaluated: bool
) -> tuple[CellState, str]:
    """The state of a cell, and its error."""
    if is_evaluated:
        return "done", ""
    # Stopped with the whole sweep: it waits for the next start.
    if isinstance(error, StoppedError | KeyboardInterrupt):
        return "waiting", ""
    if isinstance(error, NotRunError) and error.was_ended:
        return "waiting", ""
    if error is not None:
        text = str(error) if isinstance(error, GmpAtlError) else f"{type(error).__name__}: {error}"
        return "failed", without_secrets(text)[:_LONGEST_MESSAGE]
    return ("running" if lane is not None and lane.state == "running" else "waiting"), ""
