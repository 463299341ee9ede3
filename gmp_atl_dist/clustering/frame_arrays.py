"""Arrays of frames as libraries take them: fp32, and at unit length for the cosine metric.

Shape suffixes: M frames, D hidden.
"""

from __future__ import annotations

import faiss
import numpy as np

from gmp_atl_dist.errors import ModelError


def as_floats(x_MD: np.ndarray) -> np.ndarray:
    """fp32, C order, of fp16 or fp32 frames. fp32 frames are not copied."""
    if x_MD.dtype != np.float16:
        return np.ascontiguousarray(x_MD, dtype=np.float32)
    if not len(x_MD):
        return np.empty(x_MD.shape, np.float32)
    # numpy converts one value at a time; FAISS's decoder uses vector instructions.
    codec = faiss.IndexScalarQuantizer(x_MD.shape[1], faiss.ScalarQuantizer.QT_fp16)
    return codec.sa_decode(np.ascontiguousarray(x_MD).view(np.uint8))


def unit_rows(x_MD: np.ndarray) -> np.ndarray:
    """Rows at unit length, fp32. A row of zeros stays zero."""
    unit_MD = np.array(x_MD, dtype=np.float32, order="C")
    faiss.normalize_L2(unit_MD)
    return unit_MD


def check_dim(x_MD: np.ndarray, dim: int) -> None:
    """Raises ModelError if frames have another dimension than a codebook's centroids."""
    if x_MD.shape[1] != dim:
        raise ModelError(
            f"frames have {x_MD.shape[1]} values and the codebook's centroids {dim}; the "
            f"codebook is of another model: use the features that it was fitted on"
        )
