"""The command ``gmp-atl doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gmp_atl_dist.cli.options import ConfigOption, RootOption, SetOption, load_experiment
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.redaction import say_error

if TYPE_CHECKING:
    from gmp_atl_dist.doctor.findings import Finding


def doctor(
    config: ConfigOption,
    set_: SetOption = None,
    root: RootOption = None,
    wait_s: Annotated[
        float, typer.Option(min=0, help="look again for so long while something is fatal")
    ] = 0.0,
    json_: Annotated[bool, typer.Option("--json", help="for a machine")] = False,
) -> int:
    """Check configuration, store, corpus, Ray and machine in seconds; 8 if a run cannot work."""
    from gmp_atl_dist.doctor.checkup import checkup
    from gmp_atl_dist.doctor.lineage import leaks_of
    from gmp_atl_dist.doctor.show import as_json, number_of, show
    from gmp_atl_dist.errors import PreflightError

    findings = checkup(lambda: _experiment(config, set_, root), wait_s, _say_waiting)
    if json_:
        print(as_json(findings))
    else:
        show(findings)
    leaks = leaks_of(findings)
    if leaks is not None:
        raise leaks
    problems = number_of(findings, "fatal")
    if problems:
        raise PreflightError(
            f"{problems} fatal problem{'s' if problems > 1 else ''}; mend and run doctor again"
        )
    return 0


def _experiment(config: Path, set_: list[str] | None, root: str | None) -> dict[str, RunConfig]:
    """The configuration; of a sweep those of all arms, with the first seed: no check depends on it."""
    from gmp_atl_dist.config.sweep import is_sweep, load_sweep

    if is_sweep(config):
        sweep = load_sweep(config, set_ or (), root)
        return {run.arm: run.config for run in sweep.runs if run.seed == sweep.seeds[0]}
    return {"": load_experiment(config, set_, root)}


def _say_waiting(findings: list[Finding]) -> None:
    names = sorted({f.check for f in findings if f.severity == "fatal"})
    say_error(f"waiting for: {', '.join(names)}")
