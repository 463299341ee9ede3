"""What a key may be, in words, from the JSON schema of its section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias

from pydantic import BaseModel

from gmp_atl_dist.config.toml_text import toml_value

Schema: TypeAlias = Mapping[str, Any]
"""A JSON schema, as pydantic writes it."""

_LONGEST_VALUE = 60


@cache
def schema_of(model: type[BaseModel]) -> Schema:
    """The JSON schema of a configuration."""
    return model.model_json_schema()


def fits(value: object, schema: Schema, whole: Schema) -> bool:
    """Whether text and truth values stand where they may; everything else is left to pydantic."""
    schema = resolved(schema, whole)
    if "anyOf" in schema:
        members = [m for m in schema["anyOf"] if m.get("type") != "null"]
        return any(fits(value, member, whole) for member in members)
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


def expected(schema: Schema, whole: Schema) -> str:
    """What a key may be, as the object of "expected": "a whole number of at least 1"."""
    schema = resolved(schema, whole)
    if "const" in schema:
        return quoted(schema["const"])
    if "enum" in schema:
        return or_words([quoted(choice) for choice in schema["enum"]])
    if "anyOf" in schema:
        members = [m for m in schema["anyOf"] if m.get("type") != "null"]
        return or_words([expected(member, whole) for member in members])
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


def quoted(value: object) -> str:
    """A value in a message: text in single quotes."""
    return f"'{value}'" if isinstance(value, str) else toml_value(value)


def or_words(words: Sequence[str]) -> str:
    """Choices in a sentence, each once: "a, b or c"."""
    words = list(dict.fromkeys(words))
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
