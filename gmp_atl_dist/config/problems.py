"""What is wrong with a configuration, in words of this package: the key, its value, what is expected.

pydantic says at which key an error is. The schema of the configuration says what the key takes. So a
message names the choices, the limits, and the key that was probably meant.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias

from pydantic import BaseModel, ValidationError

from gmp_atl_dist.config.toml_text import toml_value

Schema: TypeAlias = Mapping[str, Any]
"""A JSON schema, as pydantic writes it."""

_LONGEST_VALUE = 60


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
        if not _fits(value, schema, whole)
    }
    return _lines(problems, name, overridden)


@cache
def schema_of(model: type[BaseModel]) -> Schema:
    """The JSON schema of a configuration."""
    return model.model_json_schema()


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


def _fits(value: object, schema: Schema, whole: Schema) -> bool:
    """Whether text and truth values stand where they may; everything else is left to pydantic."""
    schema = resolved(schema, whole)
    if "anyOf" in schema:
        members = [m for m in schema["anyOf"] if m.get("type") != "null"]
        return any(_fits(value, member, whole) for member in members)
    kind = schema.get("type")
    match value:
        case bool():
            return kind not in ("integer", "number")
        case str():
            return kind not in ("integer", "number", "boolean")
        case int() | float():
            return kind not in ("boolean", "string")
        case _:
            return True


def _below(key: str, problems: Mapping[str, str]) -> bool:
    """Whether a deeper place is named: its list is then called too short as well."""
    return any(other.startswith(f"{key}[") for other in problems)


def _lines(
    problems: Mapping[str, str], name: str, overridden: Mapping[str, str] | None
) -> list[str]:
    return [f"{_origin(key, name, overridden or {})}: {said}" for key, said in problems.items()]


def expected(schema: Schema, whole: Schema) -> str:
    """What a key may be, as the object of "expected": "a whole number of at least 1"."""
    schema = resolved(schema, whole)
    if "const" in schema:
        return _quoted(schema["const"])
    if "enum" in schema:
        return _or([_quoted(choice) for choice in schema["enum"]])
    if "anyOf" in schema:
        members = [m for m in schema["anyOf"] if m.get("type") != "null"]
        return _or([expected(member, whole) for member in members])
    match schema.get("type"):
        case "integer":
            return f"a whole number{_limits(schema, whole_numbers=True)}"
        case "number":
            return f"a number{_limits(schema, whole_numbers=False)}"
        case "boolean":
            return "true or false"
        case "string":
            least = schema.get("minLength", 0)
            if least == 1:
                return "text that is not empty"
            return f"text of {least} characters or more" if least else "text"
        case "array":
            return _expected_list(schema, whole)
        case "object" if "properties" in schema:
            return f"a section or table with the keys {', '.join(sorted(schema['properties']))}"
        case "object":
            return f"a table, each value {expected(schema.get('additionalProperties', {}), whole)}"
        case _:
            return "another value"


def resolved(schema: Schema, whole: Schema) -> Schema:
    """The schema that a reference stands for."""
    while "$ref" in schema:
        schema = whole["$defs"][str(schema["$ref"]).rpartition("/")[2]]
    return schema


def shown(value: object) -> str:
    """A value of a document as a user wrote it, cut if it is long."""
    try:
        text = toml_value(value)
    except TypeError:
        text = repr(value)
    text = text.replace('"', "'")
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def _expected_list(schema: Schema, whole: Schema) -> str:
    if "prefixItems" in schema:
        each = [expected(item, whole) for item in schema["prefixItems"]]
        return f"a list of {len(each)} values, each {each[0]}"
    items = resolved(schema.get("items", {}), whole)
    if items.get("type") == "array":
        return f"a list of lists, each item {expected(items.get('items', {}), whole)}"
    least = " that is not empty" if schema.get("minItems") else ""
    return f"a list{least}, each item {expected(items, whole)}"


def _limits(schema: Schema, *, whole_numbers: bool) -> str:
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    if whole_numbers and above is not None:
        low, above = above + 1, None
    if low is not None and high is not None:
        return f" from {toml_value(low)} to {toml_value(high)}"
    limits = [
        f"{word} {toml_value(limit)}"
        for word, limit in (
            ("of at least", low),
            ("above", above),
            ("of at most", high),
            ("below", below),
        )
        if limit is not None
    ]
    return f" {' and '.join(limits)}" if limits else ""


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
        meant = f"did you mean {_or(elsewhere[:4])}? " if elsewhere else ""
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
        alone = isinstance(value, str | int | float) and _fits(
            value, schema.get("items", {}), whole
        )
        return f"; write {last} = [{shown(value)}]" if alone else ""
    choices = [c for c in schema.get("enum", ()) if isinstance(c, str)]
    if isinstance(value, str) and (near := _near(value, choices)):
        return f"; did you mean {_quoted(near)}?"
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


def _quoted(value: object) -> str:
    return f"'{value}'" if isinstance(value, str) else toml_value(value)


def _or(words: Sequence[str]) -> str:
    words = list(dict.fromkeys(words))
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
