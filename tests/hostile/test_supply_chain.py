"""What is installed: hashes for the pins, and a bill of materials of each file of constraints."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
KINDS = ("cpu", "gpu-cu12", "gpu-cu13")


def pins(name: str) -> dict[str, str]:
    """Version by distribution, without the local part."""
    text = (REPOSITORY / name).read_text()
    found = re.findall(r"^([A-Za-z0-9_.-]+?)={2,3}([^\s+]+)", text, re.MULTILINE)
    return {
        re.sub(r"[-_.]+", "-", distribution).lower(): version for distribution, version in found
    }


def test_every_pin_has_the_hash_of_its_wheel() -> None:
    assert pins("hashes-cpu.txt") == pins("constraints-cpu.txt")
    lines = [
        line
        for line in (REPOSITORY / "hashes-cpu.txt").read_text().splitlines()
        if not line.startswith("#")
    ]
    assert all(re.fullmatch(r"\S+==\S+ --hash=sha256:[0-9a-f]{64}", line) for line in lines)
    assert len({line.split(":")[-1] for line in lines}) == len(lines)


def test_hashes_are_those_that_pip_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / ".ci")
    import hashes  # pyright: ignore[reportMissingImports]

    def item(name: str, version: str, **archive: object) -> dict[str, object]:
        about = {"name": name, "version": version}
        return {"metadata": about, "download_info": {"archive_info": archive}}

    known = item("Py_YAML", "6.0", hashes={"sha256": "ab"})
    other = item("attrs", "1", hashes={"sha256": "cd"})
    assert hashes.lines_of({"install": [known, other]}) == [
        "attrs==1 --hash=sha256:cd\n",
        "py-yaml==6.0 --hash=sha256:ab\n",
    ]
    with pytest.raises(SystemExit, match="no SHA-256 of old"):
        hashes.lines_of({"install": [item("old", "1")]})


@pytest.mark.parametrize("kind", KINDS)
def test_a_bill_of_materials_names_every_pin(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("cyclonedx_py", reason="the extra security is not installed")
    out = tmp_path / "bom.json"
    command = [sys.executable, "-m", "cyclonedx_py", "requirements", f"constraints-{kind}.txt"]
    command += ["--pyproject", "pyproject.toml", "--output-reproducible", "--sv", "1.6"]
    subprocess.run([*command, "--of", "JSON", "-o", str(out)], cwd=REPOSITORY, check=True)
    bom = json.loads(out.read_text())
    assert bom["bomFormat"] == "CycloneDX"
    named = {re.sub(r"[-_.]+", "-", c["name"]).lower() for c in bom["components"]}
    assert named == set(pins(f"constraints-{kind}.txt"))


def test_the_commands_are_where_security_says() -> None:
    text = (REPOSITORY / "SECURITY.md").read_text()
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in ("hashes", "sbom", "audit-pins", "fuzz"):
        assert f"make {target}" in text
        assert f"\n{target}:" in makefile
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert {r.split(">")[0] for r in extras["optional-dependencies"]["security"]} == {
        "cyclonedx-bom",
        "pip-audit",
    }


def test_security_names_the_bounds_of_recordings() -> None:
    from gmp_atl_dist import audio_bounds

    text = (REPOSITORY / "SECURITY.md").read_text()
    assert f"{audio_bounds.MOST_RATE_HZ // 1000} kHz" in text
    assert f"{audio_bounds.MOST_CHANNELS} channels" in text
    assert f"{audio_bounds.MOST_VALUES_PER_S:,} samples" in text
    assert f"{audio_bounds.MOST_SECONDS // 3600} hours" in text
