"""A configuration from a TOML file and ``--set a.b=c``; errors name the file and the key, all at once."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import BaseModel, ValidationError

from gmp_atl_dist.config import RunConfig, Scale
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
    name = os.fspath(path)
    file = shipped_path(path) or Path(path)
    try:
        raw: dict[str, object] = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as e:
        raise ConfigError(
            f"{name}: cannot be read ({e.strerror}); give an existing TOML file, or the name of a "
            f"shipped configuration: {', '.join(shipped_configs())}"
        ) from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ConfigError(f"{name}: is not TOML: {e}") from e
    for override in overrides:
        _apply_override(raw, override)
    return parse_config(raw, name)


def parse_config(raw: Mapping[str, object], name: str) -> RunConfig:
    """Check a parsed document; ``name`` is what errors call it."""
    try:
        return RunConfig.model_validate(raw)
    except ValidationError as e:
        raise ConfigError.of_all(f"{name} is not usable:", _problems(e, name)) from None


def _problems(error: ValidationError, name: str) -> list[str]:
    problems: list[str] = []
    for item in error.errors(include_url=False, include_context=False):
        key = ""
        for step in item["loc"]:
            key += f"[{step}]" if isinstance(step, int) else f".{step}" if key else str(step)
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = f"unknown key; {_known_keys(item['loc'])}"
        elif key and not isinstance(item["input"], Mapping):
            message = f"{message} (found {item['input']!r})"
        problems.append(": ".join(part for part in (name, key, message) if part))
    return problems


def _known_keys(loc: tuple[int | str, ...]) -> str:
    """The keys that stand where ``loc`` names an unknown one."""
    model: type[BaseModel] = RunConfig
    for step in loc[:-1]:
        if isinstance(step, int):
            model = Scale
            continue
        field = model.model_fields.get(step)
        if field is None:
            break
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            model = field.annotation
    return f"known here: {', '.join(sorted(model.model_fields))}"


def _apply_override(raw: dict[str, object], override: str) -> None:
    key, equals, text = override.partition("=")
    steps = key.strip().split(".")
    if not equals or not all(steps):
        raise ConfigError(f"--set {override}: is not of the form a.b=c, e.g. --set warmup.lr=1e-4")
    table = raw
    for step in steps[:-1]:
        below = table.setdefault(step, {})
        if not isinstance(below, dict):
            raise ConfigError(f"--set {override}: {step!r} is a value, not a section")
        table = below
    table[steps[-1]] = _parse_value(text.strip())


def _parse_value(text: str) -> object:
    """A TOML value; what is not one is a plain string, so that quotes can be left out."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
