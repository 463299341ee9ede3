"""Model files that are given by their place: those of an artefact are compared with their receipts."""

from __future__ import annotations

import re
from pathlib import Path

from gmp_atl_dist.store.artifact import find_artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey

_IN_ARTIFACT = re.compile(
    r"(?P<root>.+)/artifacts/(?P<kind>[^/]+)/(?P<fingerprint>[0-9a-f]{64})/files"
)


def check_model_files(uri: str) -> None:
    """Compare the files at ``uri``, a folder or URI, with the receipts of the artefact that they belong to.

    Files that belong to no artefact, such as an exported model, have no receipts and are not looked at.

    Raises:
        ArtifactError: a file is damaged or missing; artefact, file, both digests and the remedy are named.
    """
    place = uri if "://" in uri else str(Path(uri).resolve())
    found = _IN_ARTIFACT.fullmatch(place.rstrip("/"))
    if found is None:
        return
    key = ArtifactKey(found["kind"], found["fingerprint"])
    artifact = find_artifact(Store.open(found["root"]), key)
    if artifact is not None:
        artifact.read_files()
