"""Packages with entry points, as pip would install them, from single files of ``docs/examples``.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import shutil
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


def install_example(folder: Path, module: str, group: str, name: str, attribute: str) -> None:
    """Put the example ``module`` and its metadata into ``folder``, which is to be on ``sys.path``."""
    shutil.copy(EXAMPLES / f"{module}.py", folder)
    metadata = folder / f"{module}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}:{attribute}\n")
