"""Labels of frames that are on a device already. Only the labels are copied to the host.

The frames are rounded to fp16 first, as stored features are, so both ways label the same values.

Shapes: M frames of several utterances, D hidden, K clusters, C codebooks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gmp_atl_dist.clustering.device_search import make_search, prepared, usable_rows
from gmp_atl_dist.clustering.engines import Engine
from gmp_atl_dist.clustering.state import Metric
from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.inference.started import infinite_frame
from gmp_atl_dist.transfers import CopyLane


@dataclass(frozen=True)
class LabelledLayer:
    """What a codebook labels: frames of ``layer`` with the nearest of ``centroids_KD``, by ``metric``.

    ``name`` is that of the codebook in messages.
    """

    name: str
    layer: int
    metric: Metric
    centroids_KD: np.ndarray


@dataclass(frozen=True)
class StartedLabels:
    """The labels of a batch. They are there when the work of the lane is done."""

    ids: Sequence[str]
    counts: Sequence[int]
    books: Sequence[LabelledLayer]
    labels_CM: Tensor
    """int32; -1 of frames that are not finite."""

    def utterances(self) -> Iterator[tuple[str, np.ndarray]]:
        """Each utterance with its labels, int32 (C, T).

        Raises:
            ModelError: a feature is not finite, or too large for fp16; names utterance, layer and frame.
        """
        labels_CM = self.labels_CM.numpy()
        end = 0
        for name, count in zip(self.ids, self.counts, strict=True):
            start, end = end, end + count
            labels_CT = labels_CM[:, start:end]
            for book, labels_T in zip(self.books, labels_CT, strict=True):
                if (labels_T < 0).any():
                    raise infinite_frame(name, book.layer, int(np.argmin(labels_T)))
            yield name, labels_CT


class DeviceLabels:
    """Nearest centroids by every codebook, of all frames: a codebook of one gender labels the others too.

    An instance is the ``work`` of ``Forward.start_batches``.

    Args:
        books: all codebooks.
        engine: finds the nearest centroids.
        device: on which the frames will be.
    """

    def __init__(
        self, books: Sequence[LabelledLayer], engine: Engine, device: torch.device
    ) -> None:
        self._books = tuple(books)
        self._searches = [
            make_search(
                engine,
                torch.from_numpy(np.array(book.centroids_KD, np.float32, order="C")).to(device),
                book.metric,
            )
            for book in self._books
        ]

    def __call__(
        self,
        frames: Mapping[int, Tensor],
        ids: Sequence[str],
        counts: Sequence[int],
        lane: CopyLane,
    ) -> StartedLabels:
        """Start the search and one copy to the host. ``frames`` are (M, D) by layer.

        Raises:
            ModelError: the centroids of a codebook have another dimension than its layer.
        """
        ready: dict[tuple[int, Metric], tuple[Tensor, Tensor]] = {}
        rows: list[Tensor] = []
        for book, search in zip(self._books, self._searches, strict=True):
            k, dim = book.centroids_KD.shape
            if frames[book.layer].shape[1] != dim:
                raise ModelError(
                    f"codebook {book.name} has centroids of {dim} values, features of layer {book.layer} "
                    f"have {frames[book.layer].shape[1]}; it is of another model"
                )
            key = book.layer, book.metric
            if key not in ready:
                ready[key] = prepared(frames[book.layer].half(), book.metric)
            x_MD, squares_M = ready[key]
            squared_M, ids_M = search(x_MD, squares_M)
            usable_M = usable_rows(ids_M, squared_M, squares_M, k)
            rows.append(torch.where(usable_M, ids_M, -1).to(torch.int32))
        return StartedLabels(ids, counts, self._books, lane.fetch(torch.stack(rows)))
