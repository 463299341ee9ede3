"""Values as TOML writes them: for messages, the reference and files that this package writes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, time

from pydantic import BaseModel


def toml_value(value: object) -> str:
    """One value, on one line.

    Raises:
        TypeError: TOML has no such value.
    """
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return f"{value:_}" if abs(value) >= 10_000 else str(value)
        case float():
            return str(int(value)) if value.is_integer() and abs(value) < 1e6 else f"{value:g}"
        case str():
            return json.dumps(value, ensure_ascii=False)
        case date() | time():
            return value.isoformat()
        case BaseModel():
            return toml_value(value.model_dump(exclude_none=True))
        case Mapping():
            inner = ", ".join(f"{toml_key(name)} = {toml_value(v)}" for name, v in value.items())
            return f"{{ {inner} }}" if inner else "{}"
        case Sequence():
            return f"[{', '.join(toml_value(item) for item in value)}]"
        case _:
            raise TypeError(f"{value!r} is no TOML value")


def toml_key(name: object) -> str:
    """A key, with quotation marks where TOML needs them."""
    text = str(name)
    bare = text.isascii() and text.replace("-", "").replace("_", "").isalnum()
    return text if bare else json.dumps(text, ensure_ascii=False)
