"""Codebooks as others keep them: fairseq's k-means, which is scikit-learn's in joblib's form, and ``.npy``.

A joblib file is a pickle, which may run anything when it is loaded. Ours is read with a closed list of
names: numpy's arrays and numbers are themselves, classes of scikit-learn are empty shells that only
hold attributes, and everything else is refused.

Shape suffixes: K clusters, D hidden.
"""

from __future__ import annotations

import io
import os
import pickle
import uuid
from contextlib import suppress
from pathlib import Path

import numpy as np
from joblib import numpy_pickle

from gmp_atl_dist.errors import ArtifactError

_NUMPY_NAMES = frozenset(
    {
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("joblib.numpy_pickle", "NumpyArrayWrapper"),
        *((f"numpy.{core}.multiarray", "scalar") for core in ("core", "_core")),
        *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
    }
)
_SHELLS = ("sklearn.cluster.", "numpy.random.")
_KMEANS = ("KMeans", "MiniBatchKMeans")


class _Shell:
    """Holds what a pickle says of an object, and can do nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        pass


class _ClosedUnpickler(numpy_pickle.NumpyUnpickler):
    """joblib's reader of arrays, with a closed list of names."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) in _NUMPY_NAMES:
            return super().find_class(module, name)
        if module.startswith(_SHELLS):
            return type(name, (_Shell,), {"__module__": module})
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is not of a k-means model")


def read_centroids(path: Path) -> np.ndarray:
    """fp32 [K, D] of a ``.npy`` file, or of any other as fairseq's joblib k-means.

    Raises:
        ArtifactError: it is neither, or centroids are not finite; names the file.
    """
    centers = _read_npy(path) if path.suffix == ".npy" else _read_joblib(path)
    if (
        not isinstance(centers, np.ndarray)
        or centers.ndim != 2
        or centers.dtype.kind != "f"
        or not all(centers.shape)
    ):
        found = getattr(centers, "shape", type(centers).__name__)
        raise ArtifactError(
            f"{path}: centroids are {found}, expected floating-point numbers [clusters, dim]; give "
            f"the centroids of a k-means"
        )
    centroids_KD = np.array(centers, dtype="<f4", order="C")
    if not np.isfinite(centroids_KD).all():
        bad = int(np.flatnonzero(~np.isfinite(centroids_KD).all(axis=1))[0])
        raise ArtifactError(f"{path}: centroid {bad} is not finite in fp32; fit the k-means again")
    return centroids_KD


def _read_npy(path: Path) -> object:
    try:
        # Unlike np.load() it takes neither archives nor pickles.
        return np.asarray(np.lib.format.open_memmap(path, mode="r"))
    except (OSError, ValueError, EOFError) as e:
        raise ArtifactError(
            f"{path}: cannot be read as an array of numbers ({e}); give a whole .npy file"
        ) from e


def _read_joblib(path: Path) -> object:
    try:
        data = path.read_bytes()
    except OSError as e:
        raise ArtifactError(
            f"{path}: cannot be read ({e.strerror or e}); give an existing file"
        ) from e
    try:
        model = _ClosedUnpickler(str(path), io.BytesIO(data), ensure_native_byte_order=True).load()
    except Exception as e:  # a damaged pickle raises whatever it stumbles over
        raise ArtifactError(
            f"{path}: is no k-means that fairseq wrote by joblib.dump(), uncompressed "
            f"({type(e).__name__}: {e}); save its cluster_centers_ by numpy.save() and give that"
        ) from None
    if type(model).__name__ not in _KMEANS or not hasattr(model, "cluster_centers_"):
        raise ArtifactError(
            f"{path}: holds a {type(model).__name__}, expected a fitted {' or '.join(_KMEANS)}"
        )
    return model.cluster_centers_


def write_centroids(path: Path, centroids_KD: np.ndarray) -> None:
    """Write a ``.npy`` of fp32, or under any other name what fairseq's ``dump_km_label.py`` loads.

    A cosine codebook has centroids of unit length, for which the nearest one by Euclidean distance is
    that by angle, so it goes the same way.

    Raises:
        ArtifactError: the file cannot be written.
    """
    out = io.BytesIO()
    if path.suffix == ".npy":
        np.save(out, centroids_KD.astype("<f4"), allow_pickle=False)
    else:
        numpy_pickle.dump(_kmeans(centroids_KD), out)
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(out.getvalue())
        os.replace(temporary, path)
    except OSError as e:
        raise ArtifactError(
            f"{path}: cannot be written ({e.strerror or e}); give a folder with room that you may "
            f"write"
        ) from e
    finally:
        with suppress(OSError):
            temporary.unlink()


def _kmeans(centroids_KD: np.ndarray) -> object:
    """A scikit-learn model that predicts with these centroids."""
    from sklearn.cluster import MiniBatchKMeans

    k, dim = centroids_KD.shape
    model = MiniBatchKMeans(k)
    model.cluster_centers_ = np.ascontiguousarray(centroids_KD, dtype=np.float32)
    # What its methods ask of a model that was fitted.
    vars(model).update(n_features_in_=dim, _n_features_out=k, _n_threads=1)
    return model
