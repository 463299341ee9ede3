"""Writes a folder completely or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from gmp_atl_dist.errors import ArtifactError


def check_folder(folder: Path, names: frozenset[str], *, overwrite: bool) -> None:
    """Check that ``folder`` may be written, before its content is computed.

    With ``overwrite`` the whole folder is replaced. A folder with files of other names than ``names``
    is refused even then, because these files would be lost.

    Raises:
        ArtifactError: the folder is not empty, or is not a folder.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is a file; give a folder")
    present = sorted(path.name for path in folder.iterdir())
    if not present:
        return
    foreign = [name for name in present if name not in names]
    if overwrite and foreign:
        raise ArtifactError(
            f"{folder} contains {', '.join(foreign[:5])}, which this command does not write; --overwrite "
            f"replaces the whole folder; give another folder, or remove these files"
        )
    if not overwrite:
        raise ArtifactError(f"{folder} is not empty; give another folder, or --overwrite")


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write ``files`` into a new folder and rename it to ``folder``; then delete the old one.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    folder = folder.resolve()  # resolves a link, so that the link itself is not replaced
    tag = uuid.uuid4().hex[:8]
    new, old = (folder.with_name(f".{folder.name}.{word}-{tag}") for word in ("new", "old"))
    try:
        new.mkdir(parents=True)
        for name, data in files.items():
            _write_synced(new / name, data)
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    except OSError as e:
        raise ArtifactError(
            f"{folder}: cannot be written ({e.strerror or e}); give a writable folder with enough free "
            f"space"
        ) from e
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
