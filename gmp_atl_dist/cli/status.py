"""``gmp-atl status``: where every stage of a run stands."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from gmp_atl_dist.cli.chosen import OptionalConfigOption, RunArgument, choose_run
from gmp_atl_dist.cli.options import RootOption, SetOption
from gmp_atl_dist.cli.tables import print_table
from gmp_atl_dist.cli.words import how_long, when

if TYPE_CHECKING:
    from gmp_atl_dist.stage_survey import StageStatus
    from gmp_atl_dist.store.runs import RunRecord

_HEADINGS = ("stage", "state", "started", "took", "expected end", "artefact", "detail")


def status(
    run: RunArgument = None,
    config: OptionalConfigOption = None,
    set_: SetOption = None,
    root: RootOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
) -> int:
    """Show the state of every stage, and whether the run works, was stopped or was killed. Runs nothing.

    Of a sweep, show the state and the score of every cell.
    """
    from gmp_atl_dist.cli.sweep_status import find_sweep, show_sweep
    from gmp_atl_dist.console import Reporter
    from gmp_atl_dist.execution import open_context
    from gmp_atl_dist.stage_survey import survey
    from gmp_atl_dist.store.run_state import run_state

    sweep = find_sweep(run, config, set_, root)
    if sweep is not None:
        return show_sweep(*sweep, as_json=as_json)
    chosen = choose_run(run, config, set_, root)
    inputs = chosen.inputs()
    with open_context(chosen.config, Reporter()) as context:
        rows = survey(chosen.config, context, inputs)
    record = chosen.record
    if as_json:
        state = None if record is None else run_state(record)
        name = None if record is None else record.name
        stages = [asdict(row) for row in rows]
        print(json.dumps({"run": name, "state": state, "notes": inputs.notes, "stages": stages}))
        return 0
    console = Console()
    notes = (f"note: {n}" for n in inputs.notes)
    for line in (_about_run(record, chosen.store.uri), *_how_to_continue(record), *notes):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    print_table(_HEADINGS, list(_rows(rows)))
    return 0


def _about_run(record: RunRecord | None, root: str) -> str:
    from gmp_atl_dist.store.run_state import duration_s, run_state

    if record is None:
        return (
            f"no run of this configuration is recorded below {root}: states are those of the store"
        )
    state = run_state(record)
    last = record.attempts[-1]
    line = f"run {record.name}: {state}, started {when(record.attempts[0].started_s)}"
    if len(record.attempts) > 1:
        line += f", attempt {len(record.attempts)} since {when(last.started_s)}"
    line += f", wall time {how_long(duration_s(record))}"
    if state in ("running", "killed"):
        line += f", last seen {when(last.seen_s)} on {last.machine.host or 'an unknown host'}"
    if last.message and state in ("failed", "stopped"):
        line += f": {last.message.partition(chr(10))[0]}"
    return line


def _how_to_continue(record: RunRecord | None) -> Iterator[str]:
    """The command of the last attempt, if it did not reach the end."""
    from gmp_atl_dist.store.run_state import run_state

    if record is not None and run_state(record) in ("stopped", "killed", "failed"):
        yield f"to continue, give the last command again: {shlex.join(record.attempts[-1].command)}"


def _rows(rows: list[StageStatus]) -> Iterator[tuple[str, ...]]:
    for row in rows:
        yield (
            row.label,
            row.state,
            when(row.started_s),
            how_long(row.duration_s),
            when(row.ends_s),
            row.fingerprint[:12],
            row.detail,
        )
