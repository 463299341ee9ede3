"""Foreign files of codebooks: fairseq's k-means (scikit-learn's, written by joblib) and ``.npy``.

A joblib file is a pickle, and loading a pickle may execute any code. This reader accepts a closed list
of names only: numpy's arrays and numbers are loaded, classes of scikit-learn become empty shells that
only hold attributes, and everything else is refused.

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
    """Holds the attributes of a pickled object and has no behaviour."""

    def __init__(self, *_: object, **__: object) -> None:
        pass


class _ClosedUnpickler(numpy_pickle.NumpyUnpickler):
    """joblib's reader of arrays, with a closed list of names."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) in _NUMPY_NAMES:
            return super().find_class(module, name)
        if module.startswith(_SHELLS):
            return type(name, (_Shell,), {"__module__": module})
        raise pickle.UnpicklingError(
            f"it names {module}.{name}, which is no part of a k-means model"
        )


def read_centroids(path: Path) -> np.ndarray:
    """Centroids, fp32 [K, D], of a ``.npy`` file; any other file is read as fairseq's joblib k-means.

    Raises:
        ArtifactError: the file has neither format, or centroids are not finite; names the file.
    """
    centers = _read_npy(path) if path.suffix == ".npy" else _read_joblib(path)
    if (
        not isinstance(centers, np.ndarray)
        or centers.ndim != 2
        or centers.dtype.kind != "f"
        or not all(centers.shape)
    ):
        actual = getattr(centers, "shape", type(centers).__name__)
        raise ArtifactError(
            f"{path}: centroids are {actual}, expected floating-point numbers [clusters, dim]; give "
            f"the centroids of a k-means"
        )
    centroids_KD = np.array(centers, dtype="<f4", order="C")
    if not np.isfinite(centroids_KD).all():
        bad = int(np.flatnonzero(~np.isfinite(centroids_KD).all(axis=1))[0])
        raise ArtifactError(f"{path}: centroid {bad} is not finite in fp32; fit the k-means again")
    return centroids_KD


def _read_npy(path: Path) -> object:
    try:
        # Unlike np.load(), this accepts neither archives nor pickles.
        return np.asarray(np.lib.format.open_memmap(path, mode="r"))
    except (OSError, ValueError, EOFError) as e:
        raise ArtifactError(
            f"{path}: cannot be read as an array of numbers ({e}); give a complete .npy file"
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
    except Exception as e:  # a damaged pickle can raise any error
        raise ArtifactError(
            f"{path}: is not a k-means that fairseq wrote with joblib.dump(), uncompressed "
            f"({type(e).__name__}: {e}); save its cluster_centers_ with numpy.save() and give that file"
        ) from None
    if type(model).__name__ not in _KMEANS or not hasattr(model, "cluster_centers_"):
        raise ArtifactError(
            f"{path}: contains a {type(model).__name__}, expected a fitted {' or '.join(_KMEANS)}"
        )
    return model.cluster_centers_


def write_centroids(path: Path, centroids_KD: np.ndarray) -> None:
    """Write a ``.npy`` of fp32, or under any other name a file for fairseq's ``dump_km_label.py``.

    A cosine codebook has centroids of unit length. Its nearest centroid by Euclidean distance is also
    the nearest by angle, so the same file works.

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
            f"{path}: cannot be written ({e.strerror or e}); give a writable folder with enough free "
            f"space"
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
    # The attributes that the methods of a fitted model need.
    vars(model).update(n_features_in_=dim, _n_features_out=k, _n_threads=1)
    return model
