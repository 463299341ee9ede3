"""What the Dockerfile relies on in the package. That it builds and runs is in docs/images.md."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from gmp_atl_dist.cli.main import main

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKERFILE = (REPOSITORY / "deploy/image/Dockerfile").read_text()

LOADED = """
import sys
import gmp_atl_dist.training.ops, gmp_atl_dist.device
print("\\n".join(m.__file__ for n, m in sys.modules.items() if n.split(".")[0] == "gmp_atl_dist"))
"""


def test_its_commands_are_commands_of_ours() -> None:
    asked = [json.loads(words) for words in re.findall(r"CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)]

    assert len(asked) == 2
    for program, *arguments in asked:
        assert program == "gmp-atl"
        assert main(arguments) == 0


def test_ops_are_built_from_files_that_are_copied() -> None:
    """Before the rest of the package, so that its changes do not have them compiled anew."""
    (stage,) = re.findall(r"AS cpu-build$(.*?)^FROM", DOCKERFILE, re.MULTILINE | re.DOTALL)
    copied = {
        word
        for line in re.findall(r"^COPY (.*)$", stage, re.MULTILINE)
        for word in line.split()
        if word.endswith(".py")
    }

    said = subprocess.run(
        [sys.executable, "-c", LOADED], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    needed = {Path(line).relative_to(REPOSITORY).as_posix() for line in said.stdout.split()}
    assert needed == copied


def test_all_that_is_copied_passes_the_ignore_file() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    let_through = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {
        word.split("/")[0]
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for word in line.split()[:-1]
    }

    assert copied == let_through


def test_torch_is_the_one_that_was_tested() -> None:
    pinned = (REPOSITORY / "constraints-cpu.txt").read_text()
    (torch,) = re.findall(r"^torch==(\S+)$", pinned, re.MULTILINE)

    assert set(re.findall(r"torch==([0-9.]+)", DOCKERFILE)) == {torch}


def test_the_gpu_image_takes_the_constraints_that_it_names() -> None:
    (default,) = re.findall(r"^ARG CUDA=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert '-c "constraints-gpu-${CUDA}.txt"' in DOCKERFILE
    for cuda in (default, "cu13"):
        assert (REPOSITORY / f"constraints-gpu-{cuda}.txt").is_file()
        assert f"constraints-gpu-{cuda}.txt" in DOCKERFILE  # copied
