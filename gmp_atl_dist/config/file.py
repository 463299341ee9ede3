"""A configuration from a TOML file and ``--set a.b=c``; errors name the file and the key, all at once."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.config.problems import mistyped, problems_of
from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.shipped import shipped_configs, shipped_path


def load_config(path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> RunConfig:
    """Read a TOML file, apply ``a.b=c`` overrides in order, and check the whole.

    ``path`` may be the name of a shipped configuration, e.g. ``demo``; a file at that path takes
    precedence.

    Raises:
        ConfigError: the file cannot be read or parsed, or a key is unknown or wrong; all wrong
            keys are named at once.
    """
    raw = read_document(path)
    given: dict[str, str] = {}
    for override in overrides:
        given[apply_override(raw, override)] = f"--set {override}"
    return parse_config(raw, os.fspath(path), given)


def read_document(path: str | os.PathLike[str]) -> dict[str, object]:
    """The parsed text of a TOML file, or of a shipped configuration. Its keys are not checked.

    Raises:
        ConfigError: it cannot be read or parsed.
    """
    return read_toml(shipped_path(path) or Path(path), os.fspath(path), shipped_configs())


def read_toml(
    file: Path, name: str, shipped: Iterable[str], kind: str = "configuration"
) -> dict[str, object]:
    """The parsed text of ``file``, which messages call ``name``.

    ``shipped`` are the names of what is shipped of this ``kind``, to choose from.

    Raises:
        ConfigError: it cannot be read or parsed.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as e:
        raise ConfigError(
            f"{name}: cannot be read ({e.strerror}); give an existing TOML file, or the name of a "
            f"shipped {kind}: {', '.join(shipped)}"
        ) from e
    except UnicodeDecodeError as e:
        raise ConfigError(
            f"{name}: is not TOML: byte {e.start} is not UTF-8; save the file as UTF-8 text"
        ) from e
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise ConfigError(f"{name}: is not TOML: {e}{_line_of(str(e), text)}") from e


def parse_config(
    raw: Mapping[str, object], name: str, overridden: Mapping[str, str] | None = None
) -> RunConfig:
    """Check a parsed document.

    Args:
        raw: the document.
        name: what errors call it.
        overridden: keys that the command line set, each with the option that errors name instead.

    Raises:
        ConfigError: names all wrong keys at once.
    """
    problems = mistyped(raw, RunConfig, name, overridden)
    try:
        config = RunConfig.model_validate(raw)
    except ValidationError as e:
        found = problems_of(e, raw, RunConfig, name, overridden)
        problems = list(dict.fromkeys([*problems, *found]))
    else:
        if not problems:
            return config
    raise ConfigError.of_all(f"{name} is not usable:", problems)


def _line_of(message: str, text: str) -> str:
    """The line that the parser could not read, and what is most often wrong with such a line."""
    found = re.search(r"at line (\d+)", message)
    if found is None:
        odd = (
            f", perhaps in line {number}\n  {line.strip()}"
            for number, line in enumerate(text.splitlines(), 1)
            if line.count("'") % 2 or line.count('"') % 2
        )
        return f"; a quotation mark or bracket is not closed{next(odd, '')}"
    line = text.splitlines()[int(found[1]) - 1].strip()
    value = line.partition("=")[2].strip()
    plain = re.fullmatch(r"[A-Za-z/~.][^\"'\[\]{}#]*", value)
    return f"\n  {line}" + (f'\ntext needs quotation marks: "{value}"' if plain else "")


def apply_override(raw: dict[str, object], override: str) -> str:
    """Set one key of a document by ``a.b=c``, and return its name.

    Raises:
        ConfigError: it has another form, or a step is a value.
    """
    key, equals, text = override.partition("=")
    steps = key.strip().split(".")
    if not equals or not all(steps):
        raise ConfigError(f"--set {override}: is not of the form a.b=c, e.g. --set warmup.lr=1e-4")
    set_key(raw, steps, _parse_value(text.strip()), f"--set {override}")
    return ".".join(steps)


def set_key(raw: dict[str, object], steps: Sequence[str], value: object, what: str) -> None:
    """Set the key ``steps[0].steps[1]...`` of a document. ``what`` names the setting in messages.

    Raises:
        ConfigError: a step is a value, not a section.
    """
    table = raw
    for step in steps[:-1]:
        below = table.setdefault(step, {})
        if not isinstance(below, dict):
            raise ConfigError(f"{what}: {step!r} is a value, not a section")
        table = below
    table[steps[-1]] = value


def _parse_value(text: str) -> object:
    """A TOML value; what is not one is a plain string, so that quotes can be left out."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
