"""A configuration as the text of a TOML file."""

from __future__ import annotations

import json

from gmp_atl_dist.config import RunConfig


def toml_of(config: RunConfig) -> str:
    """All keys that are set. Numbers keep all of their digits."""
    sections = config.model_dump(mode="json", exclude_none=True)
    top = [f"{k} = {_text(v)}" for k, v in sections.items() if not isinstance(v, dict)]
    lines = [line for line in top if not line.endswith("[]")]
    for section, keys in sections.items():
        if isinstance(keys, dict):
            lines += [f"[{section}]", *(f"{k} = {_text(v)}" for k, v in keys.items())]
    return "\n".join(lines)


def _text(value: object) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{k} = {_text(v)}" for k, v in value.items() if v is not None)
        return f"{{ {inner} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return json.dumps(value)
