"""The nearest centroid of frames that lie on a device: by FAISS, or as a product in PyTorch.

Shape suffixes: M frames, D hidden, K clusters.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Protocol

import torch

from gmp_atl_dist.clustering.device import faiss_nearest, splits_products, tf32_products
from gmp_atl_dist.clustering.engines import Engine
from gmp_atl_dist.clustering.state import Metric

_LARGEST_SQUARED = torch.finfo(torch.float32).max / 2
"""FAISS starts its search for the smallest distance at the largest float, and some frames keep it."""
_SCORES = 1 << 26
"""Products of frames and centroids that are in memory at a time: 256 MiB."""
_TF32_KEPT = ~((1 << 13) - 1)
"""The bits of a float32 that TF32 has: sign, exponent, and 10 of the mantissa."""


class DeviceSearch(Protocol):
    """Finds the nearest centroids on one device."""

    def __call__(
        self, x_MD: torch.Tensor, squares_M: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """fp32 [M] squared distances and int64 [M] ids of prepared frames, fp32, whose squared lengths are
        ``squares_M``."""
        ...


def make_search(engine: Engine, centroids_KD: torch.Tensor, metric: Metric) -> DeviceSearch:
    """The search of an engine on the device of the centroids, fp32."""
    if engine == "faiss":
        return _FaissSearch(centroids_KD)
    # A frame at unit length has more bits than TF32.
    return TorchSearch(
        centroids_KD, split=metric == "euclidean" and splits_products(centroids_KD.device)
    )


def prepared(x_MD: torch.Tensor, metric: Metric) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames as searches take them, fp32, at unit length for ``cosine``; and fp32 [M] squared lengths.

    The length of a frame that is not finite is not finite either.
    """
    x_MD = x_MD.float()
    squares_M = torch.linalg.vecdot(x_MD, x_MD)
    if metric == "euclidean":
        return x_MD, squares_M
    # A row of zeros stays zero.
    lengths_M = torch.where(squares_M > 0, squares_M, 1.0).sqrt()
    x_MD = x_MD / lengths_M[:, None]
    return x_MD, squares_M / lengths_M.square()


def usable_rows(
    ids_M: torch.Tensor, squared_M: torch.Tensor, squares_M: torch.Tensor, k: int
) -> torch.Tensor:
    """bool [M]: the frame is finite, its id is one of ``k``, and its distance is a finite number.

    :mod:`gmp_atl_dist.clustering.answers` is the same for arrays. FAISS on GPUs before 1.15 gives a frame
    that is not finite cluster 0.
    """
    usable_M = (ids_M >= 0) & (ids_M < k) & (squared_M <= _LARGEST_SQUARED) & (squared_M >= 0)
    return usable_M & squares_M.isfinite()


class _FaissSearch:
    def __init__(self, centroids_KD: torch.Tensor) -> None:
        self._centroids_KD = centroids_KD

    def __call__(
        self, x_MD: torch.Tensor, squares_M: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return faiss_nearest(x_MD, self._centroids_KD)


class TorchSearch:
    """|x|^2 - 2 x c + |c|^2, as FAISS computes it. Of centroids at the same distance the first is taken.

    With ``split`` a centroid is the sum of two TF32 numbers, and its products are the sums of two TF32
    products. A frame of fp16 is a TF32 number as it is. So tensor cores are used, and a product has the
    22 bits that fp32 would give, nearly.
    """

    def __init__(self, centroids_KD: torch.Tensor, *, split: bool = False) -> None:
        self._k = len(centroids_KD)
        self._split = split
        self._parts_DK = [p.T for p in (tf32_halves(centroids_KD) if split else (centroids_KD,))]
        self._squares_K = torch.linalg.vecdot(centroids_KD, centroids_KD)

    def __call__(
        self, x_MD: torch.Tensor, squares_M: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = max(_SCORES // self._k, 1)
        with tf32_products() if self._split else nullcontext():
            found = [self._nearest(x_MD[i : i + rows]) for i in range(0, len(x_MD), rows)]
        scores_M, ids_M = (torch.cat(parts) for parts in zip(*found, strict=True))
        return (scores_M + squares_M).clamp_(min=0.0), ids_M

    def _nearest(self, x_MD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        first_DK, *others_DK = self._parts_DK
        scores_MK = torch.addmm(self._squares_K, x_MD, first_DK, alpha=-2.0)
        for part_DK in others_DK:
            scores_MK.addmm_(x_MD, part_DK, alpha=-2.0)
        smallest = scores_MK.min(dim=1)
        return smallest.values, smallest.indices


def tf32_halves(c_KD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Two tensors of TF32 numbers whose sum is ``c_KD`` but for 2^-21 of it: its first bits, and the rest."""
    first_KD = _first_bits(c_KD)
    return first_KD, _first_bits(c_KD - first_KD)


def _first_bits(c_KD: torch.Tensor) -> torch.Tensor:
    return (c_KD.view(torch.int32) & _TF32_KEPT).view(torch.float32)
