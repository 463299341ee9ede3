"""Runs tests on other versions of Python, PyTorch and transformers than those of the constraints.

    python .ci/matrix.py [--pip-args "..."] [NAME ...]      # `make test-matrix`

Each cell of ``CELLS`` gets an environment of its own below ``.matrix/``, with the pins of
``constraints-cpu.txt`` for everything else. Interpreters must be on the machine, in the PATH or as
one of uv or pyenv. A cell without one is skipped and named. The exit status is 1 if a cell fails
or if no cell could run.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
ENVIRONMENTS = REPOSITORY / ".matrix"
# Releases of these follow from torch and transformers, and some pins have no wheel for a newer Python.
FREE = ("torch", "transformers", "tokenizers", "huggingface_hub", "hf-xet", "setuptools")
TESTS = (
    "tests/models",
    "tests/training",
    "tests/inference",
    "tests/clustering",
    "tests/test_device.py",
    "tests/test_config.py",
    "tests/test_imports.py",
)


@dataclass(frozen=True)
class Cell:
    """An interpreter of Python, and the versions of torch and transformers that pip installs."""

    name: str
    python: str
    torch: str
    transformers: str


OLDEST = ("torch==2.11.*", "transformers==5.17.*")
NEWEST = ("torch", "transformers")
CELLS = (
    Cell("py311-oldest", "3.11", *OLDEST),
    Cell("py311-newest", "3.11", *NEWEST),
    Cell("py312-oldest", "3.12", *OLDEST),
    Cell("py312-newest", "3.12", *NEWEST),
    Cell("py313-newest", "3.13", *NEWEST),
)


def interpreter(version: str) -> str | None:
    """The path of a Python of this version on this machine; None without one."""
    candidates = [shutil.which(f"python{version}")]
    if shutil.which("uv"):
        asked = ["uv", "python", "find", "--no-python-downloads", version]
        candidates.append(_output(asked))
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates += sorted(map(str, pyenv.glob(f"versions/{version}.*/bin/python")))
    told = "import sys; print('%d.%d' % sys.version_info[:2])"
    # A shim of pyenv may be there without its interpreter.
    return next((p for p in candidates if p and _output([p, "-c", told]) == version), None)


def _output(command: list[str]) -> str | None:
    """What a command prints; None if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def constraints() -> Path:
    """The pins of everything that a cell does not choose."""
    ENVIRONMENTS.mkdir(exist_ok=True)
    lines = (REPOSITORY / "constraints-cpu.txt").read_text().splitlines()
    free = re.compile(rf"({'|'.join(FREE)})==", re.IGNORECASE)
    path = ENVIRONMENTS / "constraints.txt"
    path.write_text("\n".join(line for line in lines if not free.match(line)) + "\n")
    return path


def run_cell(cell: Cell, python: str, pip_args: list[str]) -> bool:
    """Install the cell and run the tests in it. True if all pass."""
    folder = ENVIRONMENTS / cell.name
    inside = str(folder / "bin/python")
    if not Path(inside).exists():
        made = subprocess.run([python, "-m", "venv", str(folder)], check=False)
        if made.returncode:
            return False
    pip = [inside, "-m", "pip", "install", "--no-input", "--quiet", *pip_args]
    pinned = ["-c", str(constraints()), cell.torch, cell.transformers, "-e", ".[cpu,dev]"]
    test = [inside, "-m", "pytest", "-q", "-n", "2", "--no-loadscope-reorder", *TESTS]
    return all(
        subprocess.run(command, cwd=REPOSITORY, check=False).returncode == 0
        for command in ([*pip, *pinned], test)
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the cells that are named, or all of them, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("cells", nargs="*", metavar="NAME", help="; ".join(c.name for c in CELLS))
    parser.add_argument("--pip-args", default="", help="for each pip install, in one word")
    chosen = parser.parse_args(arguments)
    unknown = sorted(set(chosen.cells) - {cell.name for cell in CELLS})
    if unknown:
        parser.error(f"no cell {', '.join(unknown)}; known: {', '.join(c.name for c in CELLS)}")
    results: dict[str, str] = {}
    for cell in CELLS:
        if chosen.cells and cell.name not in chosen.cells:
            continue
        python = interpreter(cell.python)
        if python is None:
            results[cell.name] = f"skipped: there is no Python {cell.python} on this machine"
            continue
        passed = run_cell(cell, python, shlex.split(chosen.pip_args))
        results[cell.name] = "passed" if passed else "FAILED"
    for name, result in results.items():
        print(f"{name:14} {result}")
    ran = [result for result in results.values() if not result.startswith("skipped")]
    return 0 if ran and all(result == "passed" for result in ran) else 1


if __name__ == "__main__":
    sys.exit(main())
