"""The handed cases: small inputs that went wrong, beside the test data.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

_DATA = Path(
    os.environ.get("GMP_ATL_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
)


def handed_case(name: str, to: Path) -> Path:
    """A writable copy of the case in the folder ``to``; skips the test where the case is not there."""
    source = _DATA.parent / "cases" / name
    if not source.is_dir():
        pytest.skip(f"{source} is not there")
    copy = to / name
    shutil.copytree(source, copy)
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return copy
