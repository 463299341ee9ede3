"""What is wrong with a configuration, in words of this package: the key, its value, what is expected.

pydantic says at which key an error is. The schema of the configuration says what the key takes. So a
message names the choices, the limits, and the key that was probably meant.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence

from pydantic import BaseModel, ValidationError

from gmp_atl_dist.config.expected import (
    Schema,
    expected,
    fits,
    or_words,
    quoted,
    resolved,
    schema_of,
    shown,
)


def problems_of(
    error: ValidationError,
    raw: Mapping[str, object],
    model: type[BaseModel],
    name: str,
    overridden: Mapping[str, str] | None = None,
) -> list[str]:
    """One line for each wrong key of ``raw``.

    Args:
        error: what pydantic found in ``raw``.
        raw: the parsed document.
        model: the configuration that it was read as.
        name: what messages call the document.
        overridden: keys that were set on the command line, each with the option that did it.
    """
    whole = schema_of(model)
    problems: dict[str, str] = {}
    for item in error.errors(include_url=False, include_context=False):
        key, value, schema = _place(item["loc"], raw, whole)
        if item["type"] == "extra_forbidden":
            said = f"{key}: {_unknown(key, value, schema, whole)}"
        elif item["type"] == "missing":
            said = f"{key}: is needed; give {expected(schema, whole)}"
        elif item["type"] in ("value_error", "assertion_error"):
            said = _own(key, value, item["msg"].partition(", ")[2])
        else:
            said = _wrong(key, value, schema, whole)
        # A value that fits no member of a union is reported once for each of them.
        problems.setdefault(f"{key} {item['type']}" if key == "" else key, said)
    return _lines(
        {key: said for key, said in problems.items() if not _below(key, problems)}, name, overridden
    )


def mistyped(
    raw: Mapping[str, object],
    model: type[BaseModel],
    name: str,
    overridden: Mapping[str, str] | None = None,
) -> list[str]:
    """One line for each value that pydantic would convert, though it has the wrong type.

    A number in quotation marks, or true where a number belongs, is more often a slip than meant.
    """
    whole = schema_of(model)
    problems = {
        key: _wrong(key, value, schema, whole)
        for key, value, schema in _leaves(raw, whole, whole, "")
        if not fits(value, schema, whole)
    }
    return _lines(problems, name, overridden)


def _leaves(
    raw: Mapping[str, object], section: Schema, whole: Schema, before: str
) -> Iterator[tuple[str, object, Schema]]:
    """(key, value, schema) of each known key that is given."""
    for name, schema in section.get("properties", {}).items():
        if name not in raw:
            continue
        key, value, below = f"{before}{name}", raw[name], resolved(schema, whole)
        if isinstance(value, Mapping) and "properties" in below:
            yield from _leaves(value, below, whole, f"{key}.")
        else:
            yield key, value, below


def _below(key: str, problems: Mapping[str, str]) -> bool:
    """Whether a deeper place is named: its list is then called too short as well."""
    return any(other.startswith(f"{key}[") for other in problems)


def _lines(
    problems: Mapping[str, str], name: str, overridden: Mapping[str, str] | None
) -> list[str]:
    return [f"{_origin(key, name, overridden or {})}: {said}" for key, said in problems.items()]


def _place(
    loc: Sequence[int | str], raw: Mapping[str, object], whole: Schema
) -> tuple[str, object, Schema]:
    """(key, value, schema) of the deepest place of ``loc`` that a user can name.

    Below a union, pydantic's steps name its members; those are no keys.
    """
    key, value, schema = "", raw, whole
    at: object = value
    for step in loc:
        schema = resolved(schema, whole)
        if "anyOf" in schema:
            break
        if isinstance(step, int):
            # A value that is no list, such as text: it is wrong as a whole.
            if not isinstance(at, Sequence) or isinstance(at, str) or step >= len(at):
                break
            prefix = schema.get("prefixItems", ())
            item = prefix[step] if step < len(prefix) else schema.get("items", {})
            # A flat list where lists are expected: one fault, however many items it has.
            if resolved(item, whole).get("type") == "array" and not isinstance(at[step], list):
                break
            schema = item
            at, key = at[step], f"{key}[{step}]"
            continue
        if not isinstance(at, Mapping):
            break
        properties = schema.get("properties", {})
        if step in properties:
            schema = properties[step]
        elif schema.get("additionalProperties"):
            schema = schema["additionalProperties"]
        elif step not in at:
            break
        # Of an unknown key, the schema stays that of the section, which knows the other keys.
        at, key = at.get(step), f"{key}.{step}" if key else step
    return key, at, resolved(schema, whole)


def _unknown(key: str, value: object, section: Schema, whole: Schema) -> str:
    """What to do about a key that is not known where it stands."""
    before, _, last = key.rpartition(".")
    known = sorted(section.get("properties", {}))
    kind = "section" if isinstance(value, Mapping) and not before else "key"
    near = _near(last, known)
    if near:
        meant = f"did you mean {near}? "
    else:
        elsewhere = [
            ".".join((*path, last))
            for path, properties in _sections(whole, whole, ())
            if last in properties
        ]
        meant = f"did you mean {or_words(elsewhere[:4])}? " if elsewhere else ""
    if last.endswith("]"):
        meant = f"a list is set as a whole: {last.partition('[')[0]} = [...]. "
    return f"unknown {kind}; {meant}known here: {', '.join(known)}"


def _near(name: str, known: Sequence[str]) -> str:
    folded = {other.casefold(): other for other in known}
    found = difflib.get_close_matches(name.casefold().replace("-", "_"), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else ""


def _sections(
    section: Schema, whole: Schema, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Schema]]:
    """(path, keys) of a section and those below it."""
    properties = section.get("properties", {})
    yield path, properties
    for name, raw in properties.items():
        below = resolved(raw, whole)
        if "properties" in below:
            yield from _sections(below, whole, (*path, name))


def _own(key: str, value: object, said: str) -> str:
    """A message that a validator of this package wrote. It names keys itself where it compares several."""
    if not key:
        return said
    return f"{key}: {said}" if isinstance(value, Mapping) else f"{key} = {shown(value)}: {said}"


def _wrong(key: str, value: object, schema: Schema, whole: Schema) -> str:
    what = f"{key} = {shown(value)}" if key else "the document"
    return f"{what}: expected {expected(schema, whole)}{_hint(key, value, schema, whole)}"


def _hint(key: str, value: object, schema: Schema, whole: Schema) -> str:
    """How to write what was probably meant."""
    last = key.rpartition(".")[2]
    if schema.get("type") == "array":
        if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            each = ", ".join(f"[{shown(item)}]" for item in value)
            return (
                f"; write {last} = [{shown(value)}] for one group of them all, or {last} = [{each}] "
                f"for a group each"
            )
        alone = isinstance(value, str | int | float) and fits(value, schema.get("items", {}), whole)
        return f"; write {last} = [{shown(value)}]" if alone else ""
    choices = [c for c in schema.get("enum", ()) if isinstance(c, str)]
    if isinstance(value, str) and (near := _near(value, choices)):
        return f"; did you mean {quoted(near)}?"
    if schema.get("type") == "string" and isinstance(value, int | float):
        return f"; text needs quotation marks: {last} = '{shown(value)}'"
    if isinstance(value, Mapping) and "properties" not in schema:
        return f"; {last} is a key and no section"
    return ""


def _origin(key: str, name: str, overridden: Mapping[str, str]) -> str:
    """Where a key was given: in the document, or by an option."""
    for steps, option in overridden.items():
        if key == steps or key.startswith((f"{steps}.", f"{steps}[")):
            return option
    return name
