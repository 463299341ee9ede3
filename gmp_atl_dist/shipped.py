"""The configurations that come with the package, each known by its name: ``demo`` is ``demo.toml``,
``iemocap/tapt`` is ``iemocap/tapt.toml``.

They are package data. In a checkout the folder ``shipped_configs`` is a link to the top-level
``configs``; a wheel, an sdist and an uploaded working directory hold the files themselves.
"""

from __future__ import annotations

import os
from pathlib import Path

SWEEPS = "sweeps/"
"""The folder whose files name arms, folds and seeds."""
_FOLDER = Path(__file__).with_name("shipped_configs")


def shipped_configs() -> dict[str, Path]:
    """The file of every shipped configuration by its name, in the order of the names.

    Those of a folder have its name before theirs: ``iemocap/tapt``. Sweeps are no configurations of a run.
    """
    files = [*_FOLDER.glob("*.toml"), *_FOLDER.glob("*/*.toml")]
    named = {path.relative_to(_FOLDER).with_suffix("").as_posix(): path for path in files}
    return {name: named[name] for name in sorted(named) if not name.startswith(SWEEPS)}


def shipped_path(config: str | os.PathLike[str]) -> Path | None:
    """The file of the shipped configuration that ``config`` names.

    None if ``config`` is no such name. A file at that path, relative to the current directory, takes
    precedence over the name; a folder does not.
    """
    if os.path.exists(config) and not os.path.isdir(config):
        return None
    return shipped_configs().get(os.fspath(config))


def shipped_sweeps() -> dict[str, Path]:
    """The file of every shipped sweep by its name: ``sweeps/emodb``."""
    return {f"{SWEEPS}{path.stem}": path for path in sorted((_FOLDER / SWEEPS).glob("*.toml"))}


def shipped_sweep_path(sweep: str | os.PathLike[str]) -> Path | None:
    """The file of the shipped sweep that ``sweep`` names; as :func:`shipped_path`."""
    if os.path.exists(sweep) and not os.path.isdir(sweep):
        return None
    return shipped_sweeps().get(os.fspath(sweep))


def summary_of(path: Path) -> str:
    """The first comment line of a TOML file, which says what the configuration is for."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.startswith("#"):
                return line.lstrip("#").strip()
    return ""
