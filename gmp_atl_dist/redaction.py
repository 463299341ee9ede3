"""Removes secrets from text that is shown, stored or pasted into tickets."""

from __future__ import annotations

import os
import re

_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|_KEY|APIKEY", re.IGNORECASE)
_NO_VALUE = re.compile(r"(_PATH|_FILE|_DIR|_URI|_URL)$", re.IGNORECASE)
_USER_IN_URL = re.compile(r"(?<=://)[^/\s@]+@")
_SHORTEST_SECRET = 6


def names_a_secret(variable: str) -> bool:
    """Whether an environment variable of this name is likely to contain a secret."""
    return bool(_SECRET_NAME.search(variable)) and not _NO_VALUE.search(variable)


def without_secrets(text: str) -> str:
    """``text`` without users in URLs and without values of environment variables that hold secrets."""
    for name, value in os.environ.items():
        if names_a_secret(name) and len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, f"<{name}>")
    return _USER_IN_URL.sub("", text)


def value_without_secrets(value: object) -> object:
    """A value of JSON with :func:`without_secrets` applied to every string in it."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, dict):
        return {name: value_without_secrets(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [value_without_secrets(inner) for inner in value]
    return value
