"""The version of a root's layout: paths, artefact kinds and stored schemas.

``_layout.json`` at the root holds it. The version is raised only when stored data of an older version
can no longer be read. A key of the configuration, a stage or a column that is added does not raise it.
"""

from __future__ import annotations

import json
import os

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.store.filesystem import Store

LAYOUT_VERSION = 1
"""Since release 0.2.0. Roots of 0.1 have no ``_layout.json``; they count as layout 0."""
LAYOUT_PATH = "_layout.json"


def read_layout(store: Store) -> int | None:
    """The layout version of a root; None for an empty root, 0 for one of release 0.1.

    Raises:
        ArtifactError: ``_layout.json`` is damaged.
    """
    if not store.exists(LAYOUT_PATH):
        return 0 if store.has_any("artifacts") else None
    try:
        version = json.loads(store.read(LAYOUT_PATH))["layout"]
    except (ValueError, KeyError, TypeError, RecursionError):
        version = None
    # True is an int in Python, and equals 1.
    if not isinstance(version, int) or isinstance(version, bool):
        raise ArtifactError(
            f'{store.uri}/{LAYOUT_PATH} is damaged; expected {{"layout": {LAYOUT_VERSION}}}: '
            f"restore it, or use a new root"
        )
    return version


def check_layout(store: Store) -> None:
    """Refuse a root of another layout. An empty root passes.

    Raises:
        ArtifactError: the root was written with another layout.
    """
    version = read_layout(store)
    if version is None or version == LAYOUT_VERSION:
        return
    release = "release 0.1" if version == 0 else "another release"
    remedy = (
        "use a new root, or the release that wrote it"
        if version < LAYOUT_VERSION
        else "upgrade gmp_atl_dist, or use a new root"
    )
    raise ArtifactError(
        f"{store.uri} has layout {version}, written by {release} of gmp_atl_dist; this release reads "
        f"layout {LAYOUT_VERSION}: {remedy}"
    )


def claim_layout(store: Store) -> None:
    """Check the root's layout, and write it down in an empty root.

    Raises:
        ArtifactError: the root was written with another layout, or cannot be written.
    """
    check_layout(store)
    if not store.exists(LAYOUT_PATH):
        store.put(LAYOUT_PATH, json.dumps({"layout": LAYOUT_VERSION}).encode())


def open_root(uri: str, *, to_write: bool = False) -> Store:
    """The store at ``uri``, with its layout checked; claimed if it is going to be written.

    Raises:
        ArtifactError: as :func:`check_layout`, or it is a file.
    """
    store = Store.open(uri)
    if not store.is_remote and os.path.isfile(store.absolute("")):
        raise ArtifactError(
            f"{store.uri} is a file, not a root; name a folder or s3://bucket/prefix"
        )
    if to_write:
        claim_layout(store)
    else:
        check_layout(store)
    return store
