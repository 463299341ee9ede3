"""``gmp-atl config``: check a configuration, print the schema."""

from __future__ import annotations

import json

import typer

from gmp_atl_dist.cli.options import ConfigOption, SetOption, load_experiment
from gmp_atl_dist.config import RunConfig

app = typer.Typer(help="Configurations: check one, print the schema of all.")


@app.command("check")
def check(config: ConfigOption, set_: SetOption = None) -> int:
    """Check a configuration and print all of it, defaults included, as JSON."""
    print(load_experiment(config, set_, None).model_dump_json(indent=2))
    return 0


@app.command("schema")
def schema() -> int:
    """Print the JSON schema of a configuration."""
    print(json.dumps(RunConfig.model_json_schema(), indent=2))
    return 0
