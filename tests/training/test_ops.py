"""Where DeepSpeed's ops are loaded from when the environment cannot be written to."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from gmp_atl_dist import device
from gmp_atl_dist.training.ops import build_ops, own_copy, use_ops_folder


@pytest.fixture
def built(tmp_path: Path) -> Path:
    folder = tmp_path / "prefix" / "torch_extensions" / "op"
    folder.mkdir(parents=True)
    (folder / "op.so").write_bytes(b"compiled")
    (folder / ".ninja_log").write_text("# ninja log")
    (folder / "lock").touch()
    os.utime(folder / "op.so", (1e9, 1e9))
    return folder.parent


def test_a_copy_is_made_once_and_keeps_what_ninja_goes_by(built: Path, tmp_path: Path) -> None:
    copy = own_copy(built, tmp_path)

    assert (copy / "op/op.so").read_bytes() == b"compiled"
    assert (copy / "op/op.so").stat().st_mtime == 1e9
    assert (copy / "op/.ninja_log").exists()
    assert not (copy / "op/lock").exists()
    (copy / "op/op.so").write_bytes(b"loaded")
    assert own_copy(built, tmp_path) == copy
    assert (copy / "op/op.so").read_bytes() == b"loaded"


def test_nothing_is_loaded_from_a_folder_that_others_may_write(built: Path, tmp_path: Path) -> None:
    own_copy(built, tmp_path).parent.chmod(0o777)

    with pytest.raises(PermissionError, match="other users can access it"):
        own_copy(built, tmp_path)


@pytest.mark.parametrize("can_write", [True, False])
def test_the_environments_own_folder_where_it_can_be_written(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_write: bool
) -> None:
    monkeypatch.setattr(sys, "prefix", str(built.parent))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr("os.access", lambda path, mode: can_write)
    monkeypatch.setenv("PATH", os.environ["PATH"])
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", "to be put back")
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR")

    assert (use_ops_folder() == built) is can_write
    assert Path(os.environ["TORCH_EXTENSIONS_DIR"], "op/op.so").exists()


def test_nothing_is_built_for_a_gpu_the_second_time_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "a" / "ops"))
    monkeypatch.setattr(device, "accelerator", lambda: "cuda")
    for _ in range(2):
        assert "nothing to build" in build_ops()
    assert (tmp_path / "a" / "ops").is_dir()
