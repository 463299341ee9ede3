"""A configuration from a TOML file and ``--set a.b=c``; errors name the file and the key, all at once."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.config.inherited import MOST_LEVELS, TOO_DEEP, TOO_LONG, read_document
from gmp_atl_dist.config.problems import mistyped, problems_of
from gmp_atl_dist.config.unused import unused_keys
from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.shipped import shipped_path


def load_config(path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> RunConfig:
    """Read a TOML file, apply ``a.b=c`` overrides in order, and check the whole.

    ``path`` may be the name of a shipped configuration, e.g. ``demo``; a file at that path takes
    precedence. A file may extend another one, see ``inherited.py``.

    Raises:
        ConfigError: a file cannot be read or parsed, or a key is unknown or wrong; all wrong
            keys are named at once.
    """
    return load_with_notes(path, overrides)[0]


def load_with_notes(
    path: str | os.PathLike[str], overrides: Iterable[str] = ()
) -> tuple[RunConfig, list[str]]:
    """As :func:`load_config`, with a line for each key that changes nothing.

    Of the keys of a file that is extended none is named: it serves arms that use them.
    """
    name = os.fspath(path)
    document = read_document(shipped_path(path) or Path(path), name)
    raw = document.values
    given: dict[str, str] = {}
    for override in overrides:
        given[apply_override(raw, override)] = f"--set {override}"
    # The command line comes first: an error of a key that it set names the option.
    config = parse_config(raw, name, given | _not_set(document.origins, given))
    notes = unused_keys(config, (*document.own, *given))
    return config, [f"{name}: {note}" for note in notes]


def read_values(path: str | os.PathLike[str]) -> dict[str, object]:
    """The document of a TOML file or of a shipped configuration, with all that it extends.

    Its keys are not checked.

    Raises:
        ConfigError: a file cannot be read or parsed.
    """
    return read_document(shipped_path(path) or Path(path), os.fspath(path)).values


def _not_set(origins: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """The files of the keys that the command line left alone."""
    return {key: where for key, where in origins.items() if key not in given}


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


def apply_override(raw: dict[str, object], override: str) -> str:
    """Set one key of a document by ``a.b=c``, and return its name.

    Raises:
        ConfigError: it has another form, is nested too deeply, or a step is a value.
    """
    key, equals, text = override.partition("=")
    steps = key.strip().split(".")
    if not equals or not all(steps):
        raise ConfigError(f"--set {override}: is not of the form a.b=c, e.g. --set warmup.lr=1e-4")
    if len(steps) > MOST_LEVELS:
        raise ConfigError(f"--set: a key of {len(steps)} steps: {TOO_DEEP}")
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
    except RecursionError:
        raise ConfigError(f"--set: the value of {len(text)} characters: {TOO_DEEP}") from None
    except ValueError:
        raise ConfigError(f"--set: the value of {len(text)} characters: {TOO_LONG}") from None
