"""``gmp-atl config``: list the shipped configurations, check one, print the schema."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from gmp_atl_dist.cli.options import ConfigOption, SetOption, load_experiment
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.shipped import shipped_configs, summary_of

app = typer.Typer(help="Configurations: list the shipped ones, check one, print the schema.")


@app.command("list")
def list_() -> int:
    """List the shipped configurations; --config takes their names."""
    files = shipped_configs()
    width = max(map(len, files), default=0)
    for name, path in files.items():
        print(f"{name:{width}}  {summary_of(path)}")
    return 0


@app.command("check")
def check(config: ConfigOption, set_: SetOption = None) -> int:
    """Check a configuration and print all of it, defaults included, as JSON."""
    print(load_experiment(config, set_, None).model_dump_json(indent=2))
    return 0


@app.command("schema")
def schema(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="print the reference of all keys as Markdown")
    ] = False,
) -> int:
    """Print the JSON schema of a configuration, or a reference of all keys."""
    if markdown:
        from gmp_atl_dist.config.reference import reference

        print(reference(), end="")
        return 0
    print(json.dumps(RunConfig.model_json_schema(), indent=2))
    return 0
