"""The grid of a sweep, for ``gmp-atl status``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from gmp_atl_dist.cli.tables import print_table
from gmp_atl_dist.cli.words import costs, device_hours, when

if TYPE_CHECKING:
    from gmp_atl_dist.sweeps.record import GridCell, SweepRecord


def find_sweep(
    name: str | None, config: Path | None, set_: list[str] | None, root: str | None
) -> tuple[SweepRecord, str] | None:
    """The record of the sweep ``name`` or of the sweep's file ``config``, and its root. None: it is a run.

    Raises:
        ConfigError: the file is a sweep, and none of its name is recorded.
    """
    from gmp_atl_dist.config import RuntimeConfig
    from gmp_atl_dist.config.sweep import is_sweep, load_sweep
    from gmp_atl_dist.errors import ConfigError
    from gmp_atl_dist.store.layout import open_root
    from gmp_atl_dist.sweeps.record import read_sweep, sweep_names

    if config is not None and name is None:
        if not is_sweep(config):
            return None
        sweep = load_sweep(config, set_ or (), root)
        store = open_root(sweep.config.runtime.root)
        record = read_sweep(store, sweep.name)
        if record is None:
            known = ", ".join(sweep_names(store)) or "none"
            raise ConfigError(
                f"no sweep {sweep.name!r} is recorded below {store.uri}; there are: {known}"
            )
        return record, store.uri
    if name is None or config is not None:
        return None
    store = open_root(RuntimeConfig().root if root is None else root)
    if name not in sweep_names(store):
        return None
    record = read_sweep(store, name)
    return None if record is None else (record, store.uri)


def show_sweep(record: SweepRecord, root: str, *, as_json: bool) -> int:
    """Print the grid: a row per arm and seed, a column per fold."""
    if as_json:
        print(record.model_dump_json())
        return 0
    console = Console()
    for line in (*_about(record, root), *_failures(record)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    cells = {(cell.arm, cell.seed, cell.fold): cell for cell in record.cells}
    pooled = {(report.arm, report.seed): report.scores for report in record.reports}
    rows = [
        (
            arm,
            f"{seed}",
            *(_word(cells.get((arm, seed, fold)), record) for fold in record.folds),
            _percent(pooled.get((arm, seed), {})),
        )
        for arm in record.arms
        for seed in record.seeds
    ]
    print_table(("arm", "seed", *record.folds, "pooled UAR"), rows)
    return 0


def _about(record: SweepRecord, root: str) -> Iterator[str]:
    state = record.state
    line = f"sweep {record.name} below {root}: {state}"
    if record.attempts:
        line += f", started {when(record.attempts[0].started_s)}"
        if len(record.attempts) > 1:
            line += f", attempt {len(record.attempts)} since {when(record.attempts[-1].started_s)}"
    yield line
    counts = [f"{record.count('done')} of {len(record.cells)} cells done"]
    if state == "running":
        counts.append(f"{record.count('running')} running")
    counts.append(f"{len(record.failed)} failed")
    if state == "running" and record.ends_s is not None:
        counts.append(f"expected end {when(record.ends_s)}")
    yield ", ".join(counts)
    if record.device_hours:
        yield f"so far {device_hours(record.device_hours)}{costs(record.price, record.currency)}"


def _failures(record: SweepRecord) -> Iterator[str]:
    for cell in record.failed:
        yield f"{cell.name}: {cell.stage}: {cell.message.partition(chr(10))[0]}"


def _word(cell: GridCell | None, record: SweepRecord) -> str:
    """A cell in a word: its UAR once it is done."""
    if cell is None:
        return ""
    if cell.state == "done":
        return _percent(cell.scores)
    if cell.state == "running":
        return cell.stage if record.state == "running" else record.state
    return cell.state


def _percent(scores: dict[str, float]) -> str:
    return f"{100 * scores['uar']:.1f} %" if "uar" in scores else ""
