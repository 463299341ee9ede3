"""The run that a command is about: by its name, or by its configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gmp_atl_dist.cli.options import load_experiment
from gmp_atl_dist.config import RunConfig, RuntimeConfig
from gmp_atl_dist.errors import ConfigError

if TYPE_CHECKING:
    from gmp_atl_dist.outside_inputs import OutsideInputs
    from gmp_atl_dist.store.filesystem import Store
    from gmp_atl_dist.store.runs import RunRecord

RunArgument = Annotated[
    str | None, typer.Argument(help="name of a run below the root: gmp-atl runs")
]
OptionalConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="in place of RUN: TOML file, or the name of a shipped one: gmp-atl config list",
    ),
]


@dataclass(frozen=True)
class ChosenRun:
    """A run: its configuration, its root, and its record if there is one."""

    config: RunConfig
    store: Store
    record: RunRecord | None

    def inputs(self) -> OutsideInputs:
        """Finds what was made of recordings and of the stock model."""
        from gmp_atl_dist.outside_inputs import OutsideInputs

        return OutsideInputs(self.store, self.record)


def choose_run(
    run: str | None, config: Path | None, set_: list[str] | None, root: str | None
) -> ChosenRun:
    """The run ``run`` below ``root``, or that of ``config``, or the only one below ``root``.

    Raises:
        ConfigError: there is no such run, there are several, or the arguments contradict each other.
        ArtifactError: the root cannot be used, or the record is damaged.
    """
    from gmp_atl_dist.runs.names import config_of, find_record, get_run, known_runs
    from gmp_atl_dist.store.layout import open_root
    from gmp_atl_dist.store.runs import run_names

    if config is not None:
        if run is not None:
            raise ConfigError(f"{run!r} and --config {config}: give one of the two")
        experiment = load_experiment(config, set_, root)
        store = open_root(experiment.runtime.root)
        return ChosenRun(experiment, store, find_record(experiment, store))
    if set_:
        raise ConfigError("--set goes with --config; a recorded run has its own configuration")
    store = open_root(RuntimeConfig().root if root is None else root)
    if run is None:
        names = run_names(store)
        if len(names) != 1:
            raise ConfigError(
                f"which run? give its name, or --config; below {store.uri}: {known_runs(store)}"
            )
        run = names[0]
    record = get_run(store, run)
    return ChosenRun(config_of(record, store.uri), store, record)
