"""A folder that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from gmp_atl_dist.errors import ArtifactError


def check_folder(folder: Path, names: frozenset[str], *, overwrite: bool) -> None:
    """Whether ``folder`` may be written; asked before what goes into it is made.

    With ``overwrite``, a folder that holds files of other names than ``names`` is refused all the
    same: it is replaced whole, and somebody's files would be lost.

    Raises:
        ArtifactError: it holds something, or is no folder.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is a file; give a folder")
    found = sorted(path.name for path in folder.iterdir())
    if not found:
        return
    foreign = [name for name in found if name not in names]
    if overwrite and foreign:
        raise ArtifactError(
            f"{folder} holds {', '.join(foreign[:5])}, which this command does not write; --overwrite "
            f"replaces the whole folder, so give another, or remove them"
        )
    if not overwrite:
        raise ArtifactError(f"{folder} is not empty; give another, or --overwrite")


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write ``files`` beside ``folder`` and rename; what was there before goes when they are there.

    Raises:
        ArtifactError: it cannot be written.
    """
    folder = folder.resolve()  # through a link, so that the link stays
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
            f"{folder}: cannot be written ({e.strerror or e}); give a folder with room that you may "
            f"write"
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
