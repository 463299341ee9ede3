"""Stored codebooks: k-means centroids, the group that they are for, and the record of the fit.

Shape suffixes: K clusters, D hidden.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.records import CODEBOOK_SCHEMA, EVERYBODY
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.manifest import Receipt
from gmp_atl_dist.store.writer import ArtifactWriter

FITTED = "fitted"
PART = "codebooks"


@dataclass(frozen=True)
class FitRecord:
    """The record of a fit; ``stability`` is None if it was not measured."""

    seed: int
    frames: int
    mean_squared_distances: tuple[float, ...]
    """Mean squared distance of a frame before each update, and under the final centroids."""
    relocated: int
    stability: float | None = None

    @property
    def mean_squared_distance(self) -> float:
        return self.mean_squared_distances[-1]

    @property
    def iterations(self) -> int:
        return len(self.mean_squared_distances) - 1


@dataclass(frozen=True)
class Codebook:
    """Centroids of one scale and gender group ("all" unless by gender): fp32 [K, D].

    Label ids start at ``offset``. ``fit`` is None for an imported codebook; ``origin`` then names the source.
    """

    scale: int
    layer: int
    group: str
    offset: int
    centroids_KD: np.ndarray
    metric: str = "euclidean"
    origin: str = FITTED
    fit: FitRecord | None = None

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of layer, metric and centroids: it does not depend on where the codebook came from."""
        k, dim = self.centroids_KD.shape
        head = f"{self.layer} {self.metric} {k} {dim}\n".encode()
        return hashlib.sha256(head + self.centroids_KD.astype("<f4").tobytes()).hexdigest()

    @property
    def end(self) -> int:
        """One past its last label id."""
        return self.offset + len(self.centroids_KD)

    def applies_to(self, gender: str) -> bool:
        """Whether frames of speakers of this gender get its labels."""
        return self.group in (EVERYBODY, gender)


def put_codebooks(out: ArtifactWriter, books: Sequence[Codebook]) -> Receipt:
    """Write all codebooks of an artefact, by scale and then by first label id."""
    rows = [_row(book) for book in _ordered(books)]
    return out.put_part(PART, pa.Table.from_pylist(rows, schema=CODEBOOK_SCHEMA))


def read_codebooks(codebooks: Artifact) -> tuple[Codebook, ...]:
    """Every codebook, by scale and then by first label id.

    Raises:
        ArtifactError: centroids do not have their fingerprint.
    """
    rows = codebooks.read_part(PART, CODEBOOK_SCHEMA).to_pylist()
    return _ordered([_book(codebooks, row) for row in rows])


def books_by_scale(books: Sequence[Codebook]) -> tuple[tuple[Codebook, ...], ...]:
    """The codebooks of each scale, in order."""
    scales = sorted({book.scale for book in books})
    return tuple(tuple(book for book in books if book.scale == scale) for scale in scales)


def at_scale(books: Sequence[Codebook], scale: int) -> list[Codebook]:
    """The same codebooks, with ``scale`` as their scale."""
    return [replace(book, scale=scale) for book in books]


def _ordered(books: Sequence[Codebook]) -> tuple[Codebook, ...]:
    return tuple(sorted(books, key=lambda b: (b.scale, b.offset)))


def _row(book: Codebook) -> dict[str, object]:
    fit = book.fit
    return {
        "scale": book.scale,
        "layer": book.layer,
        "group": book.group,
        "offset": book.offset,
        "metric": book.metric,
        "k": book.centroids_KD.shape[0],
        "dim": book.centroids_KD.shape[1],
        "centroids": book.centroids_KD.astype("<f4").tobytes(),
        "fingerprint": book.fingerprint,
        "origin": book.origin,
        "seed": None if fit is None else fit.seed,
        "fitted_frames": None if fit is None else fit.frames,
        "mean_squared_distances": None if fit is None else list(fit.mean_squared_distances),
        "relocated": None if fit is None else fit.relocated,
        "stability": None if fit is None else fit.stability,
    }


def _book(codebooks: Artifact, row: dict[str, object]) -> Codebook:
    flat = np.frombuffer(_bytes(row["centroids"]), dtype="<f4")
    k, dim = _int(row["k"]), _int(row["dim"])
    fit = None
    mean_squared_distances = row["mean_squared_distances"]
    if isinstance(mean_squared_distances, list):
        stability = row["stability"]
        fit = FitRecord(
            _int(row["seed"]),
            _int(row["fitted_frames"]),
            tuple(mean_squared_distances),
            _int(row["relocated"]),
            stability if isinstance(stability, float) else None,
        )
    if flat.size != k * dim:
        raise ArtifactError(
            f"{codebooks.key.prefix}: a codebook of layer {row['layer']} holds {flat.size} values, "
            f"expected {k} x {dim}; run gmp-atl verify"
        )
    book = Codebook(
        _int(row["scale"]),
        _int(row["layer"]),
        str(row["group"]),
        _int(row["offset"]),
        flat.reshape(k, dim),
        str(row["metric"]),
        str(row["origin"]),
        fit,
    )
    if book.fingerprint != row["fingerprint"]:
        raise ArtifactError(
            f"{codebooks.key.prefix}: the codebook of layer {book.layer} is "
            f"{book.fingerprint[:12]}, its row says {str(row['fingerprint'])[:12]}; run gmp-atl verify"
        )
    return book


def _int(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"expected a whole number, got {value!r}")
    return value


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"expected bytes, got {type(value).__name__}")
    return value
