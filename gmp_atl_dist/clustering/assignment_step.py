"""Passes over frames in memory: blocks of them, by group, on some threads or GPUs.

Shape suffixes: M frames, D hidden.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import TypeVar

import numpy as np

from gmp_atl_dist.clustering.assignment import BLOCK_ROWS, Assigner, as_floats, unit_rows
from gmp_atl_dist.clustering.initialization import initial_centroids
from gmp_atl_dist.clustering.lloyd import Fit, Request, State, run_fits
from gmp_atl_dist.clustering.statistics import ClusterStatistics, NotFiniteError
from gmp_atl_dist.device import one_faiss_thread
from gmp_atl_dist.errors import ModelError

T = TypeVar("T")
R = TypeVar("R")

_GPU_BLOCK_ROWS = 65_536
_GPU_WORTH_FLOP = 1e11
"""A pass of less is done sooner than a GPU is fed (faiss#1719)."""

Blocks = Mapping[str, Sequence[np.ndarray]]
"""Frames of each group, fp16 or fp32 [M, D], in pieces of at most ``block_rows``."""


class Computer:
    """ClusterStatistics of blocks on ``threads`` threads of one FAISS thread each, or on ``gpus`` GPUs.

    A block is converted once for all that is asked of it, and blocks are added in order, so that the
    sums do not depend on the number of threads.
    """

    def __init__(self, threads: int | None = None, gpus: int = 0) -> None:
        self.threads = threads or int(os.environ.get("OMP_NUM_THREADS", "1"))
        self._gpus = gpus
        self._pool = ThreadPoolExecutor(self.threads, initializer=one_faiss_thread)
        # FAISS's resources of a GPU are for one thread at a time.
        self._lock = Lock()

    def close(self) -> None:
        self._pool.shutdown()

    @property
    def block_rows(self) -> int:
        return _GPU_BLOCK_ROWS if self._gpus else BLOCK_ROWS

    def blocks(self, x_MD: np.ndarray) -> list[np.ndarray]:
        """Views of the frames, a block each."""
        return [x_MD[i : i + self.block_rows] for i in range(0, len(x_MD), self.block_rows)]

    def assigners(self, requests: Sequence[Request], frames: int) -> list[Assigner]:
        """For each request; on the GPUs where there are some and it is worth it."""
        found = []
        for request in requests:
            k, dim = request.centroids_KD.shape
            worth_it = 2.0 * frames * k * dim >= _GPU_WORTH_FLOP
            gpus = self._gpus if worth_it else 0
            found.append(Assigner(request.centroids_KD, request.metric, gpus))
        return found

    def add(
        self,
        totals: Sequence[ClusterStatistics],
        requests: Sequence[Request],
        assigners: Sequence[Assigner],
        blocks: Blocks,
    ) -> None:
        """Add the blocks of every group to the totals of the requests for that group.

        Raises:
            NotFiniteError: with the group, and the row of its frames.
        """
        for group in dict.fromkeys(request.group for request in requests):
            mine = [i for i, request in enumerate(requests) if request.group == group]

            def work(x_MD: np.ndarray, mine: Sequence[int] = mine) -> list[ClusterStatistics]:
                return self._block_sums(x_MD, [assigners[i] for i in mine])

            start = 0
            for x_MD, found in self._in_order(work, blocks.get(group, ())):
                if isinstance(found, NotFiniteError):
                    raise NotFiniteError(start + found.row, group)
                for i, sums in zip(mine, found, strict=True):
                    totals[i].add(sums)
                start += len(x_MD)

    def _block_sums(
        self, x_MD: np.ndarray, assigners: Sequence[Assigner]
    ) -> list[ClusterStatistics]:
        x_MD = as_floats(x_MD)
        unit_MD = unit_rows(x_MD) if any(a.metric == "cosine" for a in assigners) else x_MD
        found = []
        for assigner in assigners:
            rows_MD = unit_MD if assigner.metric == "cosine" else x_MD
            found.append(
                ClusterStatistics.of(rows_MD, assigner, self._lock if self._gpus else None)
            )
        return found

    def _in_order(
        self, work: Callable[[T], R], items: Iterable[T]
    ) -> Iterator[tuple[T, R | NotFiniteError]]:
        """Each item with its result, in order; only a few results are held at a time."""
        waiting: deque[tuple[T, Future[R]]] = deque()
        for item in items:
            waiting.append((item, self._pool.submit(work, item)))
            if len(waiting) > self.threads:
                yield _resolved(*waiting.popleft())
        while waiting:
            yield _resolved(*waiting.popleft())


def _resolved(item: T, future: Future[R]) -> tuple[T, R | NotFiniteError]:
    try:
        return item, future.result()
    except NotFiniteError as e:
        return item, e


def fit_in_memory(
    fits: Sequence[Fit],
    frames: Mapping[str, np.ndarray],
    *,
    threads: int | None = None,
    gpus: int = 0,
    starts: Sequence[np.ndarray] | None = None,
) -> list[State]:
    """Fit codebooks of frames that are at hand: the whole of k-means in one process.

    ``frames`` holds fp16 or fp32 [M, D] by group ("all" for everybody). ``starts`` are first centroids
    fp32 [K, D]; without them each fit chooses its own. Threads default to ``OMP_NUM_THREADS``.

    Raises:
        ConfigError: there are fewer (different) frames than clusters.
        ModelError: a frame is not finite.
    """
    computer = Computer(threads, gpus)
    for group, x_MD in frames.items():
        if x_MD.ndim != 2:
            raise ModelError(f"frames of group {group!r} have shape {x_MD.shape}, expected [M, D]")
    blocks = {group: computer.blocks(x_MD) for group, x_MD in frames.items()}

    def over_all(requests: Sequence[Request]) -> list[ClusterStatistics]:
        totals = [ClusterStatistics.zero(*request.centroids_KD.shape) for request in requests]
        most = max((len(x_MD) for x_MD in frames.values()), default=0)
        try:
            computer.add(totals, requests, computer.assigners(requests, most), blocks)
        except NotFiniteError as e:
            raise ModelError(
                f"frame {e.row} is not finite; leave it out, or extract its features again"
            ) from None
        return totals

    if starts is None:
        starts = [
            initial_centroids(
                frames[fit.group],
                fit.k,
                init=fit.init,
                metric=fit.metric,
                seed=fit.seed,
                what=fit.what,
            )
            for fit in fits
        ]
    states = [State(np.array(start, np.float32, order="C")) for start in starts]
    try:
        for i, state in run_fits(fits, states, over_all):
            states[i] = state
    finally:
        computer.close()
    return states
