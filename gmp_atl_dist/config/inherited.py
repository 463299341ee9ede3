"""A configuration that extends another one: ``extends = "../iemocap.toml"`` on its first line.

The path is relative to the file that says so, or the name of a shipped configuration. Sections are joined
key by key; what the file itself says wins, and a list replaces a list. The result is an ordinary document:
what is stored and hashed knows nothing of where a key was written.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.shipped import shipped_configs, shipped_path

EXTENDS = "extends"
MOST_LEVELS = 32
_MOST_FILES = 32
TOO_LONG = "a number has thousands of digits; at most 18 digits are a number of TOML"
TOO_DEEP = (
    "its brackets are nested too deeply; no key needs more than four levels, remove the others"
)
_LENGTHS = ("steps", "epochs")


@dataclass(frozen=True)
class Document:
    """A parsed document with all that it extends.

    Attributes:
        values: the joined sections, without ``extends``.
        origins: the file of each key that another file than the first one gave.
        own: the keys that the first file gives itself.
    """

    values: dict[str, Any]
    origins: dict[str, str]
    own: tuple[str, ...]


def read_document(file: Path, name: str, readers: tuple[Path, ...] = ()) -> Document:
    """The document at ``file``, which messages call ``name``; ``readers`` are the files that extend it.

    Raises:
        ConfigError: a file cannot be read or parsed, or files extend each other in a circle.
    """
    plain = ", ".join(n for n in shipped_configs() if "/" not in n)
    choices = (
        f"the name of a shipped configuration: {plain}, or of an arm that gmp-atl config list names"
    )
    raw = read_toml(file, name, choices)
    base = raw.pop(EXTENDS, None)
    own = tuple(key for key, _ in leaves(raw))
    if base is None:
        return Document(raw, {}, own)
    if not isinstance(base, str) or not base.strip():
        raise ConfigError(
            f"{name}: {EXTENDS} = {base!r}: expected the path of a TOML file, relative to this one, or the "
            f"name of a shipped configuration"
        )
    chain = (*readers, file.resolve())
    if len(chain) > _MOST_FILES:
        raise ConfigError(
            f"{name}: {EXTENDS} = {base!r}: {len(chain)} files extend each other and at most "
            f"{_MOST_FILES} may; join some of them"
        )
    below = _found(base, file)
    if below.resolve() in chain:
        circle = " -> ".join(path.name for path in (*chain, below))
        raise ConfigError(
            f"{name}: {EXTENDS} = {base!r} closes a circle: {circle}; remove one of them"
        )
    inherited = read_document(below, _shown(below, base), chain)
    origins = {key: _shown(below, base) for key in inherited.own} | inherited.origins
    values = _joined(inherited.values, raw)
    given = {key for key, _ in leaves(values)} - set(own)
    return Document(values, {key: where for key, where in origins.items() if key in given}, own)


def leaves(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """(key, value) of everything that is no section."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _joined(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    values = dict(base)
    if any(name in over for name in _LENGTHS):
        # One of the two is the length of a training, and TOML cannot unset the other.
        for name in _LENGTHS:
            values.pop(name, None)
    for name, value in over.items():
        below = values.get(name)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            value = _joined(below, value)
        values[name] = value
    return values


def _found(base: str, file: Path) -> Path:
    """A file beside ``file``; without one, the shipped configuration of that name."""
    beside = file.parent / base
    if beside.is_file():
        return beside
    return shipped_configs().get(base, beside)


def _shown(file: Path, base: str) -> str:
    return base if shipped_path(base) else str(file)


def read_toml(file: Path, name: str, choices: str) -> dict[str, Any]:
    """The parsed text of ``file``, which messages call ``name``; ``choices`` says what else can be given.

    Raises:
        ConfigError: it cannot be read or parsed.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as e:
        raise ConfigError(
            f"{name}: cannot be read ({e.strerror}); give an existing TOML file, or {choices}"
        ) from e
    except UnicodeDecodeError as e:
        raise ConfigError(
            f"{name}: is not TOML: byte {e.start} is not UTF-8; save the file as UTF-8 text"
        ) from e
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise ConfigError(f"{name}: is not TOML: {e}{_line_of(str(e), text)}") from e
    except RecursionError:
        # Without the traceback of each bracket.
        raise ConfigError(f"{name}: {TOO_DEEP}") from None
    except ValueError:
        raise ConfigError(f"{name}: is not TOML: {TOO_LONG}") from None
    if is_too_deep(values):
        raise ConfigError(f"{name}: {TOO_DEEP}")
    return values


def is_too_deep(value: object) -> bool:
    """Whether tables and lists hold each other over more levels than any key needs."""
    level: list[object] = [value]
    for _ in range(MOST_LEVELS):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return bool(level)


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
