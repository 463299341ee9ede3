"""The result of a check: an item, its value, and a remedy."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

Severity = Literal["ok", "warning", "fatal"]

_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|_KEY|APIKEY", re.IGNORECASE)
_NO_VALUE = re.compile(r"(_PATH|_FILE|_DIR|_URI|_URL)$", re.IGNORECASE)
_USER_IN_URL = re.compile(r"(?<=://)[^/\s@]+@")
_SHORTEST_SECRET = 6


@dataclass(frozen=True)
class Finding:
    """One line of the report. ``remedy`` is empty if there is no problem."""

    check: str
    item: str
    value: str
    severity: Severity = "ok"
    remedy: str = ""


def warning(check: str, item: str, value: str, remedy: str) -> Finding:
    """The run may fail, or may cost more than necessary."""
    return Finding(check, item, value, "warning", remedy)


def fatal(check: str, item: str, value: str, remedy: str) -> Finding:
    """The run cannot work."""
    return Finding(check, item, value, "fatal", remedy)


def is_fatal(findings: Iterable[Finding]) -> bool:
    return any(finding.severity == "fatal" for finding in findings)


def names_a_secret(variable: str) -> bool:
    """Whether an environment variable of this name is likely to contain a secret."""
    return bool(_SECRET_NAME.search(variable)) and not _NO_VALUE.search(variable)


def without_secrets(text: str) -> str:
    """``text`` without users in URLs and without values of environment variables that hold secrets.

    Libraries quote their input in errors, and reports are pasted into tickets.
    """
    for name, value in os.environ.items():
        if names_a_secret(name) and len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, f"<{name}>")
    return _USER_IN_URL.sub("", text)


def redacted(finding: Finding) -> Finding:
    """The finding without secrets, as it may be shown."""
    item, value, remedy = map(without_secrets, (finding.item, finding.value, finding.remedy))
    return replace(finding, item=item, value=value, remedy=remedy)
