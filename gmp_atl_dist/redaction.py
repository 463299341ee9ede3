"""The one way out for text that people and logs see: without the secrets that it may quote.

Libraries quote what they were given, such as the URL of a store with its password. So every line of the
reporter of a run, of its log file, of a finding and of an error of the command line passes
:func:`without_secrets`. Results on the standard output (``--json``, CSV) are data and stay as they are.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from types import TracebackType
from typing import TextIO
from urllib.parse import unquote

_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|_KEY|APIKEY", re.IGNORECASE)
_NO_VALUE = re.compile(r"(_PATH|_FILE|_DIR|_URI|_URL)$", re.IGNORECASE)
# A password may hold an @, so up to the last one before the path.
_USER_IN_URL = re.compile(r"(?<=://)[^/\s\"'<>]*@")
_SIGNED = re.compile(
    r"(?<=[?&])((?:x-amz-(?:signature|credential|security-token)|sig|signature|token|password|key)=)"
    r"[^&\s\"'<>]+",
    re.IGNORECASE,
)
_SHORTEST_SECRET = 6


def names_a_secret(variable: str) -> bool:
    """Whether an environment variable of this name is likely to contain a secret."""
    return bool(_SECRET_NAME.search(variable)) and not _NO_VALUE.search(variable)


def without_secrets(text: str) -> str:
    """``text`` without users in URLs, signatures of URLs, and secrets of environment variables.

    Secrets are the values of variables whose names say so, and passwords in the URLs of any variable: a
    library may quote them without the URL around them.
    """
    text = _SIGNED.sub(r"\1...", _USER_IN_URL.sub("", text))
    for name, value in os.environ.items():
        for secret in _secrets_of(name, value):
            if len(secret) >= _SHORTEST_SECRET and secret in text:
                text = text.replace(secret, f"<{name}>")
    return text


def _secrets_of(name: str, value: str) -> tuple[str, ...]:
    """The longest one first, so that no rest of it stays."""
    if names_a_secret(name):
        return (value,)
    found = _USER_IN_URL.search(value) if "://" in value else None
    if found is None:
        return ()
    user = found[0]
    password = user[:-1].partition(":")[2]
    return (user, unquote(user), password, unquote(password))


def say_error(text: str, to: TextIO | None = None) -> None:
    """One message for a person, without secrets; to the standard error unless ``to`` is given."""
    print(without_secrets(text), file=sys.stderr if to is None else to, flush=True)


def show_traceback(
    kind: type[BaseException], error: BaseException, where: TracebackType | None
) -> None:
    """A traceback without secrets; for ``sys.excepthook``."""
    say_error("".join(traceback.format_exception(kind, error, where)).rstrip("\n"))


def value_without_secrets(value: object) -> object:
    """A value of JSON with :func:`without_secrets` applied to every string in it."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, dict):
        return {name: value_without_secrets(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [value_without_secrets(inner) for inner in value]
    return value
