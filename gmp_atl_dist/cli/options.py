"""Options that several commands take, and what they come to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.config.file import load_config, load_with_notes
from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.uris import uri_problem

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
    str | None,
    typer.Option(help="folder or URI (s3://, gs://, az://) of all artefacts; over runtime.root"),
]


def local_option(description: str) -> Any:
    """An option with the path of a file or folder that is written to this machine's disk."""
    return typer.Option(parser=local_path, metavar="PATH", help=description)


def local_path(given: str | Path) -> Path:
    """The value of :func:`local_option`.

    Raises:
        ConfigError: it is empty, or a URI. A folder of that name would be made.
    """
    text = str(given)
    if problem := uri_problem(text):
        raise ConfigError(f"{text!r} {problem}")
    if "://" in text:
        raise ConfigError(
            f"{text!r} is no path of this machine but a URI; give a path, and copy the result from there"
        )
    return Path(text)


def load_experiment(config: Path, overrides: list[str] | None, root: str | None) -> RunConfig:
    """The file with its overrides; ``root`` over all.

    Raises:
        ConfigError: see :func:`gmp_atl_dist.config.file.load_config`.
    """
    return load_config(config, _rooted(overrides, root))


def load_experiment_with_notes(
    config: Path, overrides: list[str] | None, root: str | None
) -> tuple[RunConfig, list[str]]:
    """As :func:`load_experiment`, with a line for each given key that changes nothing."""
    return load_with_notes(config, _rooted(overrides, root))


def _rooted(overrides: list[str] | None, root: str | None) -> list[str]:
    rooted = [] if root is None else [f"runtime.root={json.dumps(root)}"]
    return [*(overrides or []), *rooted]
