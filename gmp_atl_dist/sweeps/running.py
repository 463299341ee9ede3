"""Runs a sweep: what runs share first, then all cells side by side, each failure named.

Every arm and seed is a run with a record of its own; a fold of it is a cell. All of them are lanes of one
driver (``scheduling/lanes.py``), so a stage that several cells need runs once.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from gmp_atl_dist import stopping
from gmp_atl_dist.config.sweep import Sweep, SweepRun
from gmp_atl_dist.errors import GmpAtlError, PartlyFailedError, StoppedError
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.models.head_registry import check_head
from gmp_atl_dist.runs.facts import memory_of_family
from gmp_atl_dist.runs.names import named
from gmp_atl_dist.runs.recorder import RunRecorder
from gmp_atl_dist.runtime import cluster_nodes
from gmp_atl_dist.scheduling.lanes import Lane, Lanes
from gmp_atl_dist.scheduling.room import Offers
from gmp_atl_dist.scheduling.walks import MethodRun, lanes_of, prepare
from gmp_atl_dist.stages.base import Context
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.layout import claim_layout
from gmp_atl_dist.sweeps.grid import GridRun, MadeArtifacts
from gmp_atl_dist.sweeps.keeping import SweepKeeper
from gmp_atl_dist.sweeps.page import write_page
from gmp_atl_dist.sweeps.planning import plan_stages
from gmp_atl_dist.sweeps.record import GridCell, SweepRecord
from gmp_atl_dist.sweeps.tested import check_listed_test_sets, check_sealed_test_sets

_MEASURED_EVERY_S = 2.0


def run_sweep(
    sweep: Sweep,
    context: Context,
    *,
    nodes: Callable[[], Offers | None] = cluster_nodes,
) -> SweepRecord:
    """Run every cell that is not done yet, and the report of each arm and seed.

    Raises:
        ConfigError: arms are not tested on the same utterances; nothing was started.
        PartlyFailedError: some cells failed, and the others are done.
        GmpAtlError: no cell could begin, or the sweep was stopped.
    """
    for run in sweep.runs:
        check_head(run.config.finetune)
    context.store.check_writable()
    claim_layout(context.store)
    listed = check_listed_test_sets(sweep, context.source)
    stopping.check()
    memory = _shared_measurement()
    grid = [_grid_run(sweep, run, context, memory) for run in sweep.runs]
    keeper = SweepKeeper(sweep, context, grid, _fold_names(listed))
    with _closed_at_the_end(grid), keeper:
        _prepare(grid, sweep)
        lanes = Lanes(context.connection.open, nodes)
        every: list[Lane] = []
        for member in grid:
            if member.error is None:
                cells, member.report = lanes_of(member.run, lanes)
                names = [fold.name for fold in member.run.folds]
                member.cells = dict(zip(names, cells, strict=True))
                every += [*cells, member.report]
        keeper.planned(plan_stages([m.run for m in grid if m.error is None]), lanes)
        lanes.run(every)
    record = keeper.record
    _say_defects(grid, context)
    _write_page(record, context)
    if record.failed:
        raise _partly_failed(record)
    report_error = next((m.first_error for m in grid if m.first_error is not None), None)
    if report_error is not None:
        raise report_error
    return record


def _fold_names(folds: Sequence[Fold] | None) -> tuple[str, ...]:
    return tuple(fold.name for fold in folds or ())


def _grid_run(sweep: Sweep, run: SweepRun, context: Context, memory: Callable[[], int]) -> GridRun:
    name = f"{sweep.name}-{run.arm}-seed{run.seed}"
    runtime = run.config.runtime.model_copy(update={"run_name": name})
    config = named(run.config.model_copy(update={"runtime": runtime}), sweep.file)
    within = replace(context, settings=config.runtime, reporter=context.reporter.named(run.label))
    made = MadeArtifacts()
    recorder = RunRecorder(config, within, sweep.file, memory=memory)
    method = MethodRun(config, within, (recorder, made), run.label)
    return GridRun(run, method, made, recorder, {})


def _prepare(grid: Sequence[GridRun], sweep: Sweep) -> None:
    """The corpus and the backbone of each run. An arm that fails here fails alone.

    Raises:
        GmpAtlError: no run could be prepared: the error of the first.
        ConfigError: the sealed corpora have other test sets.
    """
    shared: dict[str, Artifact] = {}
    for member in grid:
        member.recorder.__enter__()
        try:
            prepare(member.run, shared)
        except GmpAtlError as e:
            if isinstance(e, StoppedError):
                raise
            member.error = e
            member.run.context.reporter.warning(f"cannot begin: {e}")
    ready = [member for member in grid if member.error is None]
    if not ready and grid[0].error is not None:
        raise grid[0].error
    check_sealed_test_sets(
        sweep, {m.sweep_run.arm: m.run for m in reversed(ready)} if ready else {}
    )


@contextmanager
def _closed_at_the_end(grid: Sequence[GridRun]) -> Iterator[None]:
    try:
        yield
    except BaseException as e:
        for member in grid:
            member.close(member.first_error if member.is_over else e)
        raise
    for member in grid:
        member.close(member.first_error)


def _shared_measurement() -> Callable[[], int]:
    """The memory of this process and its children, measured once for the records of all runs."""
    value, measured_s = 0, float("-inf")

    def memory() -> int:
        nonlocal value, measured_s
        if time.monotonic() - measured_s >= _MEASURED_EVERY_S:
            value, measured_s = memory_of_family(), time.monotonic()
        return value

    return memory


def _say_defects(grid: Sequence[GridRun], context: Context) -> None:
    """Tracebacks of errors that are no user's, into the log of the run."""
    for member in grid:
        for lane in member.cells.values():
            if lane.error is not None and not isinstance(lane.error, GmpAtlError):
                print("".join(traceback.format_exception(lane.error)))


def _write_page(record: SweepRecord, context: Context) -> None:
    """The page of all arms. Without it no result is lost, so an error is a warning."""
    try:
        page = write_page(context.store, record, audio=context.settings.report_audio)
    except GmpAtlError as e:
        context.reporter.warning(f"the page of the sweep was not written: {e}")
        return
    if page is not None:
        context.reporter.line(f"sweep {record.name}: {context.store.uri}/{page}")


def _partly_failed(record: SweepRecord) -> PartlyFailedError:
    done, failed = record.count("done"), record.failed
    problems = [f"{cell.name}, {cell.stage}: {_first_line(cell)}" for cell in failed]
    error = PartlyFailedError.of_all(
        f"{len(failed)} of {len(record.cells)} cells failed, {done} are done; the same command tries the "
        f"failed ones again:",
        problems,
    )
    assert isinstance(error, PartlyFailedError)
    return error


def _first_line(cell: GridCell) -> str:
    return cell.message.partition("\n")[0]
