"""Options that several commands take, and what they come to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.config.file import load_config

ConfigOption = Annotated[
    Path,
    typer.Option(
        "--config", "-c", help="TOML file, or the name of a shipped one: gmp-atl config list"
    ),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", "-s", help="override a key: a.b=c; repeatable")
]
RootOption = Annotated[
    str | None, typer.Option(help="folder or s3:// URI of all artefacts; over runtime.root")
]


def load_experiment(config: Path, overrides: list[str] | None, root: str | None) -> RunConfig:
    """The file with its overrides; ``root`` over all.

    Raises:
        ConfigError: see :func:`gmp_atl_dist.config.file.load_config`.
    """
    rooted = [] if root is None else [f"runtime.root={json.dumps(root)}"]
    return load_config(config, [*(overrides or []), *rooted])
