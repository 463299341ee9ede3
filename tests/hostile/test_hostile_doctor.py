"""``doctor`` on places and machines that cannot work: a finding for each, and no defect of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.hostile import say

from gmp_atl_dist.config import RuntimeConfig
from gmp_atl_dist.doctor.machine import check_libraries, check_machine
from gmp_atl_dist.errors import PreflightError


@pytest.mark.parametrize("root", ["ftp://b/x", "hf://x/y"])
def test_a_root_of_another_scheme_is_named(root: str, tmp_path: Path) -> None:
    """``ftp://``: "report this as a defect" before."""
    config = tmp_path / "run.toml"
    config.write_text('[corpus]\nadapter = "table"\n[model]\nsource = "random:tiny"\n')
    said = say(["doctor", "--config", str(config), "--root", root])
    assert said.code == PreflightError.exit_code
    assert f"runtime.root {root}" in said.text
    assert "name a folder, or an s3://, gs:// or az:// URI" in said.text
    assert "this as a defect" not in said.text
    assert "Traceback" not in said.text


def test_the_machine_is_looked_at_whatever_the_root_is() -> None:
    found = list(check_machine(RuntimeConfig(root="ftp://b/x")))
    assert "disk" in {finding.check for finding in found}
    assert not [finding for finding in found if "ftp://" in finding.item]


def test_a_machine_without_torch_is_not_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """None in ``sys.modules`` is what Python itself takes for a module that is not installed."""
    monkeypatch.setitem(sys.modules, "torch", None)
    found = {f.item: f for f in check_libraries(RuntimeConfig())}
    assert found["torch"].severity == "fatal"
    assert "install an extra" in found["torch"].remedy
    assert found["transformers"].severity == "ok"
