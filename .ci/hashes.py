"""Writes ``hashes-cpu.txt``: the pins of ``constraints-cpu.txt``, each with the SHA-256 of its wheel.

    python .ci/hashes.py [what pip install gets besides]      # `make hashes`

pip takes hashes for a whole install or not at all, and an editable project has none. So they are in a file of
their own. It is for Python 3.11 on Linux, x86-64: other machines get other wheels. pip downloads every wheel
once to compute its hash, and installs nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PINS = REPOSITORY / "constraints-cpu.txt"
HASHES = REPOSITORY / "hashes-cpu.txt"
HEAD = """\
# The pins of constraints-cpu.txt with the SHA-256 of each wheel, for Python 3.11 on Linux, x86-64.
# `make hashes` writes this file. pip refuses a wheel with another hash:
#   INDEX=https://download.pytorch.org/whl/cpu
#   pip install --require-hashes --no-deps --extra-index-url "$INDEX" -r hashes-cpu.txt
#   pip install --no-deps --no-build-isolation -e .
"""


def report(pip_arguments: list[str]) -> dict[str, object]:
    """What pip would install for the pins alone."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
        command += ["--no-deps", "--quiet", "--report", str(path), *pip_arguments, "-r", str(PINS)]
        subprocess.run(command, check=True)
        return json.loads(path.read_text())


def lines_of(found: dict[str, object]) -> list[str]:
    """One line for each distribution, sorted by name.

    Raises:
        SystemExit: pip has no SHA-256 of one.
    """
    lines: list[str] = []
    for item in found["install"]:  # pyright: ignore[reportGeneralTypeIssues]
        metadata, archive = item["metadata"], item["download_info"]["archive_info"]
        sha256 = archive.get("hashes", {}).get("sha256")
        if sha256 is None:
            raise SystemExit(f"pip tells no SHA-256 of {metadata['name']}; upgrade pip")
        name = metadata["name"].lower().replace("_", "-")
        lines.append(f"{name}=={metadata['version']} --hash=sha256:{sha256}\n")
    return sorted(lines)


if __name__ == "__main__":
    HASHES.write_text(HEAD + "".join(lines_of(report(sys.argv[1:]))))
    print(f"wrote {HASHES.name}")
