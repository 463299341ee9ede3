"""The result of a check: an item, its value, and a remedy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from gmp_atl_dist.redaction import without_secrets

Severity = Literal["ok", "warning", "fatal"]


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


def redacted(finding: Finding) -> Finding:
    """The finding without secrets. Libraries quote their input in errors, and reports are shared."""
    item, value, remedy = map(without_secrets, (finding.item, finding.value, finding.remedy))
    return replace(finding, item=item, value=value, remedy=remedy)
