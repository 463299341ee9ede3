"""The kit for a machine with a GPU and no network, with a folder in place of the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PIECE_BYTES = 4096


def wheel(folder: Path, name: str) -> None:
    """A package of one module, whose bytes do not compress."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}.py", f"NAME = {name!r}\nNOISE = {os.urandom(3000).hex()!r}\n")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        file.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        file.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n")


class Kit:
    """A small checkout with the script, and a home in place of the machine."""

    def __init__(self, folder: Path) -> None:
        self.checkout, self.home = folder / "checkout", folder / "home"
        (self.checkout / "benchmarks").mkdir(parents=True)
        shutil.copy(REPOSITORY / "benchmarks" / "gpu_kit.sh", self.checkout / "benchmarks")
        (self.checkout / ".gitignore").write_text("/.kit/\n")
        (self.checkout / "benchmarks" / "gpu.py").write_text(
            "import sys, first, second\nprint('proof', *sys.argv[1:], first.NAME, second.NAME)\n"
        )
        for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
            identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
            subprocess.run(["git", *identity, *words], cwd=self.checkout, check=True)
        for name in ("first", "second"):
            wheel(self.checkout / ".kit" / "wheels", name)

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        env = {
            **os.environ,
            "PYTHON": sys.executable,
            "GPU_KIT_HOME": str(self.home),
            "GPU_KIT_PIECE_BYTES": str(PIECE_BYTES),
        }
        return subprocess.run(
            ["bash", "benchmarks/gpu_kit.sh", *words],
            cwd=self.checkout,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    made = Kit(tmp_path)
    packed = made("pack")
    assert packed.returncode == 0, packed.stderr
    return made


def test_pieces_are_small_and_arrive_one_by_one(kit: Kit, tmp_path: Path) -> None:
    pieces = sorted((kit.checkout / ".kit" / "pieces").glob("piece.*"))
    assert len(pieces) >= 3
    assert all(piece.stat().st_size <= PIECE_BYTES for piece in pieces)
    come = tmp_path / "come"
    come.mkdir()
    shutil.copy(pieces[0].with_name("SHA256SUMS"), come)
    # Each transfer replaces the one before it.
    for number, piece in enumerate(pieces):
        shutil.copy(piece, come)
        there = kit("there", str(come))
        assert there.returncode == 0, there.stderr
        assert ("ready" in there.stdout) == (number == len(pieces) - 1), there.stdout
        (come / piece.name).unlink()
    ran = kit("run", "--parts", "kmeans")
    assert ran.stdout == "proof --parts kmeans first second\n", ran.stderr


def test_a_damaged_piece_is_refused(kit: Kit, tmp_path: Path) -> None:
    assert kit("send", str(tmp_path / "come")).returncode == 0
    piece = tmp_path / "come" / "piece.01"
    piece.write_bytes(b"x" + piece.read_bytes()[1:])
    there = kit("there", str(tmp_path / "come"))
    assert there.returncode == 1
    assert "damaged" in there.stderr
    assert not (kit.home / "site").exists()


def test_nothing_to_pack_names_the_step_before(kit: Kit) -> None:
    shutil.rmtree(kit.checkout / ".kit")
    packed = kit("pack")
    assert packed.returncode == 1
    assert "fetch" in packed.stderr
