"""Imports and exports codebooks: artefacts of kind ``codebook``, one per scale.

Shape suffixes: K clusters, D hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gmp_atl_dist.config import Json
from gmp_atl_dist.corpora.canonical import canonical_text
from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.exchange.kmeans_files import read_centroids, write_centroids
from gmp_atl_dist.exchange.layout import sha256_of
from gmp_atl_dist.records import EVERYBODY
from gmp_atl_dist.stages.codebook_origin import EXTRACTORS, Declaration
from gmp_atl_dist.store.artifact import Artifact, artifact_of, find_artifact, list_artifacts
from gmp_atl_dist.store.codebooks import Codebook, put_codebooks, read_codebooks
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.layout import claim_layout
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.writer import ArtifactWriter

KINDS = ("codebook", "cluster")
"""Artefacts with the codebooks of one scale, and of all scales of a run."""
_VERSION = 1


def find_codebooks(store: Store, fingerprint: str) -> Artifact:
    """The artefact of either kind whose fingerprint begins with ``fingerprint``.

    Raises:
        ArtifactError: no artefact matches, or several match.
    """
    matching = [
        key
        for key in list_artifacts(store)
        if key.kind in KINDS and key.fingerprint.startswith(fingerprint)
    ]
    kind = matching[0].kind if len(matching) == 1 else KINDS[0]
    return artifact_of(store, kind, fingerprint)


def all_codebooks(store: Store) -> list[Artifact]:
    """All artefacts with the codebooks of one scale."""
    artifacts = [find_artifact(store, key) for key in list_artifacts(store) if key.kind == KINDS[0]]
    return [artifact for artifact in artifacts if artifact is not None]


def import_codebook(
    store: Store,
    path: Path,
    layer: int,
    metric: str = "euclidean",
    *,
    fitted_on: str = "",
    speakers: Sequence[str] = (),
    extracted_by: str = EXTRACTORS[0],
) -> Artifact:
    """Import a foreign k-means into the store. A scale names it by its fingerprint.

    Args:
        fitted_on: what its owner declares that it was fitted on; without it, no clean run accepts it.
        speakers: those of the corpus of a run that are among them.
        extracted_by: whose features it is of.

    Returns:
        The codebook; the fitted one where this store fitted these centroids itself.

    Raises:
        ArtifactError: the file has no centroids, or with the cosine metric a centroid is not of unit
            length.
    """
    centroids_KD = read_centroids(path)
    if metric == "cosine":
        _check_unit(path, centroids_KD)
    own = _fitted_here(store, Codebook(0, layer, EVERYBODY, 0, centroids_KD, metric))
    if own is not None:
        return own
    science: dict[str, Json] = {"imported": sha256_of(path), "layer": layer, "metric": metric}
    science |= Declaration.science(fitted_on, tuple(speakers), extracted_by)
    key = ArtifactKey.of(KINDS[0], _VERSION, science, {})
    existing = find_artifact(store, key)
    if existing is not None:
        return existing
    claim_layout(store)
    out = ArtifactWriter(store, key)
    origin = f"imported from {path.name}"
    put_codebooks(out, [Codebook(0, layer, EVERYBODY, 0, centroids_KD, metric, origin)])
    return out.seal(version=_VERSION, science=science, inputs={})


def read_speakers(path: Path) -> tuple[str, ...]:
    """The names in a text file, one per line, as corpora spell them.

    Raises:
        ArtifactError: the file cannot be read, or names nobody.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise ArtifactError(
            f"{path}: cannot be read as UTF-8 text ({e}); give a file with one speaker per line"
        ) from e
    names = tuple(sorted({name for line in lines if (name := canonical_text(line))}))
    if not names:
        raise ArtifactError(f"{path}: names no speaker; give one per line, or leave --speakers out")
    return names


def _fitted_here(store: Store, book: Codebook) -> Artifact | None:
    """The fitted codebook with the same centroids, which tells itself what it was fitted on."""
    for artifact in all_codebooks(store):
        if "imported" not in artifact.manifest.science:
            books = read_codebooks(artifact)
            if len(books) == 1 and books[0].fingerprint == book.fingerprint:
                return artifact
    return None


def export_codebook(
    codebooks: Artifact, path: Path, scale: int, group: str = EVERYBODY
) -> Codebook:
    """Write the centroids of a codebook; see :func:`write_centroids` for the formats.

    Raises:
        ArtifactError: there is no such scale or group, or the file cannot be written.
    """
    books = read_codebooks(codebooks)
    matching = [book for book in books if (book.scale, book.group) == (scale, group)]
    if not matching:
        raise ArtifactError(
            f"{codebooks.key.prefix} has no codebook of scale {scale} and group {group!r}; it has "
            f"{_named(books)}"
        )
    write_centroids(path, matching[0].centroids_KD)
    return matching[0]


def _named(books: Sequence[Codebook]) -> str:
    return ", ".join(f"scale {book.scale} of {book.group!r}" for book in books)


def _check_unit(path: Path, centroids_KD: np.ndarray) -> None:
    lengths = np.linalg.norm(centroids_KD, axis=1)
    if not np.allclose(lengths, 1, atol=1e-3):
        worst = int(np.abs(lengths - 1).argmax())
        raise ArtifactError(
            f"{path}: centroid {worst} has length {lengths[worst]:.4g}, expected 1 for the cosine "
            f"metric; import it with --metric euclidean"
        )
