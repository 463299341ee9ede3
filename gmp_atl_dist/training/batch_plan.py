"""Which utterances make up update ``n``: a pure function of the data, the seed, and ``n``.

All updates have about the same amount of audio. Parts are read in a shuffled order, in windows of a few
hours, so that a corpus larger than memory is read front to back once per epoch. Within a window,
utterances are shuffled and grouped by length. A stopped run resumes at any update without reading what came
before it.

Shape suffix: U utterances of the corpus.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import numpy as np

from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.partition import piece_starts
from gmp_atl_dist.seeding import keyed_rng

WINDOW_S = 3 * 3600.0
"""The audio that is shuffled together: 350 MB of samples, which fit a reader's cache."""
_BATCHES_PER_BUCKET = 8


class UpdatePlan(Protocol):
    """Which utterances make up an update: :class:`BatchPlan`, or shares of sources (``mixture.py``)."""

    batches_per_epoch: int
    update_samples: float
    """Samples of an update, on average."""

    def batch(self, step: int) -> np.ndarray: ...
    def micro_batches(self, step: int, count: int) -> list[np.ndarray]: ...
    def epoch(self, step: int) -> int: ...


class BatchPlan:
    """Batches of utterance numbers. Every utterance is used once per epoch; all epochs have as many batches.

    Batches are cut at equal distances along an epoch's audio, and an utterance belongs to the batch in which
    its middle lies. No batch is empty, because none is shorter than the longest utterance.

    Args:
        num_samples_U: of each utterance, int64.
        part_U: the part in which each lies, int64.
        batch_s: the least audio in a batch; less than twice as much if an epoch has few batches.
        max_samples: the most samples that are used of an utterance.
    """

    def __init__(
        self,
        num_samples_U: np.ndarray,
        part_U: np.ndarray,
        *,
        batch_s: float,
        max_samples: int,
        seed: int,
    ) -> None:
        self._length_U = np.minimum(num_samples_U, max_samples)
        self._part_U = part_U
        self._seed = seed
        self._total = int(self._length_U.sum())
        batch_samples = max(batch_s * SAMPLE_RATE_HZ, int(self._length_U.max()))
        self.batches_per_epoch = max(1, int(self._total // batch_samples))
        self.update_samples = self._total / self.batches_per_epoch
        self._epoch = lru_cache(maxsize=2)(self._plan_epoch)

    def batch(self, step: int) -> np.ndarray:
        """int64 numbers of the utterances of update ``step``, counted from 0, sorted by length."""
        order_U, starts, sequence = self._epoch(self.epoch(step))
        number = sequence[step % self.batches_per_epoch]
        return self._by_length(order_U[starts[number] : starts[number + 1]])

    def micro_batches(self, step: int, count: int) -> list[np.ndarray]:
        """The batch, cut into ``count`` pieces of similar audio and lengths; some may be empty."""
        batch = self.batch(step)
        starts = piece_starts(self._length_U[batch], count)
        return [batch[starts[i] : starts[i + 1]] for i in range(count)]

    def epoch(self, step: int) -> int:
        """The epoch of update ``step``, both counted from 0."""
        return step // self.batches_per_epoch

    def _by_length(self, numbers: np.ndarray) -> np.ndarray:
        # The number breaks ties, so that equal lengths do not depend on the order of rows.
        return numbers[np.lexsort((numbers, self._length_U[numbers]))]

    def _plan_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(utterances in order [U], where batches start in it [batches + 1], their sequence [batches])."""
        rng = keyed_rng("order", self._seed, epoch)
        order_U, window_U = self._shuffled(rng)
        starts = piece_starts(self._length_U[order_U], self.batches_per_epoch)
        # Batches of a window are ordered by length. They are shuffled, so that lengths do not follow time.
        window = window_U[starts[:-1]]
        sequence = np.lexsort((rng.random(self.batches_per_epoch), window))
        return order_U, starts, sequence

    def _shuffled(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(utterances, the window of each). A window has whole parts, and similar lengths are close."""
        parts, part_U = np.unique(self._part_U, return_inverse=True)
        audio = np.bincount(part_U, weights=self._length_U)
        part_order = rng.permutation(len(parts))
        before = np.cumsum(audio[part_order]) - audio[part_order]
        part_window = np.empty(len(parts), np.int64)
        part_window[part_order] = before // (WINDOW_S * SAMPLE_RATE_HZ)
        window_U = part_window[part_U]
        order_U = np.lexsort((rng.random(len(window_U)), window_U))
        length_U = self._length_U[order_U]
        bucket_audio = _BATCHES_PER_BUCKET * self._total / self.batches_per_epoch
        bucket_U = ((np.cumsum(length_U) - length_U) // bucket_audio).astype(np.int64)
        # Every second bucket is in falling order, so that a batch across two buckets has similar lengths.
        rising_U = np.where(bucket_U % 2, -length_U, length_U)
        within = np.lexsort((order_U, rising_U, bucket_U, window_U[order_U]))
        order_U = order_U[within]
        return order_U, window_U[order_U]
