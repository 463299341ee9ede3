"""Prints findings as a table for a terminal, as lines for a log, or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from gmp_atl_dist.doctor.findings import Finding, Severity

_STYLES: dict[Severity, str] = {"ok": "green", "warning": "yellow", "fatal": "bold red"}


def as_json(findings: Sequence[Finding]) -> str:
    """``{"ok": ..., "findings": [...]}``; ``ok`` is true if no finding is fatal."""
    ok = number_of(findings, "fatal") == 0
    return json.dumps({"ok": ok, "findings": [asdict(finding) for finding in findings]}, indent=2)


def show(findings: Sequence[Finding], terminal: bool | None = None) -> None:
    """Print a table on a terminal, and one line per finding otherwise."""
    if sys.stdout.isatty() if terminal is None else terminal:
        _table(findings)
        return
    for finding in findings:
        remedy = f"; {finding.remedy}" if finding.remedy else ""
        name = f"{finding.severity:<7} {finding.check}"
        print(f"{name}: {finding.item}: {finding.value}{remedy}", flush=True)


def number_of(findings: Sequence[Finding], severity: Severity) -> int:
    """How many findings have this severity."""
    return sum(finding.severity == severity for finding in findings)


def _table(findings: Sequence[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("", "check", "item", "result", "what to do")
    for finding in findings:
        style = _STYLES[finding.severity]
        cells = (finding.check, finding.item, finding.value, finding.remedy)
        # As text, so that brackets in a path are not read as markup.
        table.add_row(Text(finding.severity, style), *map(Text, cells))
    Console().print(table)
