"""Assignment steps over frames in memory: in blocks, by group, on threads or on GPUs.

Shape suffixes: M frames, D hidden, K clusters.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import TypeVar

import numpy as np

from gmp_atl_dist.clustering.assignment import (
    BLOCK_ROWS,
    Assigner,
    AssignerFactory,
    make_assigner,
)
from gmp_atl_dist.clustering.initialization import initial_centroids
from gmp_atl_dist.clustering.lloyd import run_fits
from gmp_atl_dist.clustering.state import Fit, Metric, Request, State
from gmp_atl_dist.clustering.statistics import ClusterStatistics, NotFiniteError
from gmp_atl_dist.device import one_faiss_thread
from gmp_atl_dist.errors import ModelError

T = TypeVar("T")
R = TypeVar("R")

_GPU_BLOCK_ROWS = 65_536
_GPU_WORTH_FLOP = 1e11
"""A CPU finishes a smaller assignment step before a GPU has its data (faiss#1719)."""

Blocks = Mapping[str, Sequence[np.ndarray]]
"""Frames by group, fp16 or fp32 [M, D], in pieces of at most ``block_rows``."""


class AssignmentStep:
    """Cluster statistics of blocks, on ``threads`` threads with one FAISS thread each, or on ``gpus`` GPUs.

    A block is prepared once for all requests of one metric. Statistics of blocks are added in order, so
    that they do not depend on the number of threads. Threads default to ``OMP_NUM_THREADS``.
    """

    def __init__(
        self,
        threads: int | None = None,
        gpus: int = 0,
        make_assigner: AssignerFactory = make_assigner,
    ) -> None:
        self.threads = threads or int(os.environ.get("OMP_NUM_THREADS", "1"))
        self._gpus = gpus
        self._make_assigner = make_assigner
        self._pool = ThreadPoolExecutor(self.threads, initializer=one_faiss_thread)
        # FAISS's resources of a GPU serve one thread at a time.
        self._gpu_lock = Lock()

    def close(self) -> None:
        self._pool.shutdown()

    @property
    def block_rows(self) -> int:
        return _GPU_BLOCK_ROWS if self._gpus else BLOCK_ROWS

    def blocks(self, x_MD: np.ndarray) -> list[np.ndarray]:
        """The frames in blocks; each is a view."""
        return [x_MD[i : i + self.block_rows] for i in range(0, len(x_MD), self.block_rows)]

    def assigners(self, requests: Sequence[Request], frames: int) -> list[Assigner]:
        """One per request; on the GPUs, if there are any and ``frames`` are enough for them."""
        assigners: list[Assigner] = []
        for request in requests:
            k, dim = request.centroids_KD.shape
            worth_it = 2.0 * frames * k * dim >= _GPU_WORTH_FLOP
            gpus = self._gpus if worth_it else 0
            assigners.append(self._make_assigner(request.centroids_KD, request.metric, gpus))
        return assigners

    def add(
        self,
        totals: Sequence[ClusterStatistics],
        requests: Sequence[Request],
        assigners: Sequence[Assigner],
        blocks: Blocks,
    ) -> None:
        """Add the statistics of each group's blocks to the totals of the requests for that group.

        Raises:
            NotFiniteError: with the group, and the row of its frames.
        """
        for group in dict.fromkeys(request.group for request in requests):
            numbers = [i for i, request in enumerate(requests) if request.group == group]

            def work(x_MD: np.ndarray, numbers: Sequence[int] = numbers) -> list[ClusterStatistics]:
                return self._of_block(x_MD, [assigners[i] for i in numbers])

            first_row = 0
            for x_MD, result in self._in_order(work, blocks.get(group, ())):
                if isinstance(result, NotFiniteError):
                    raise NotFiniteError(first_row + result.row, group)
                for i, statistics in zip(numbers, result, strict=True):
                    totals[i].add(statistics)
                first_row += len(x_MD)

    def _of_block(self, x_MD: np.ndarray, assigners: Sequence[Assigner]) -> list[ClusterStatistics]:
        lock = self._gpu_lock if self._gpus else None
        prepared: dict[Metric, np.ndarray] = {}
        statistics: list[ClusterStatistics] = []
        for assigner in assigners:
            if assigner.metric not in prepared:
                prepared[assigner.metric] = assigner.prepared(x_MD)
            statistics.append(ClusterStatistics.of(prepared[assigner.metric], assigner, lock))
        return statistics

    def _in_order(
        self, work: Callable[[T], R], items: Iterable[T]
    ) -> Iterator[tuple[T, R | NotFiniteError]]:
        """Each item with its result, in order. Only a few results are in memory at a time."""
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
    initial: Sequence[np.ndarray] | None = None,
    make_assigner: AssignerFactory = make_assigner,
) -> list[State]:
    """Fit codebooks of frames in memory: the whole of k-means in one process.

    ``frames`` holds fp16 or fp32 [M, D] by group ("all" is the group of everybody). ``initial`` are the
    first centroids of each fit, fp32 [K, D]; without them each fit chooses its own. Threads default to
    ``OMP_NUM_THREADS``.

    Raises:
        ConfigError: there are fewer (different) frames than clusters.
        ModelError: a frame is not finite.
    """
    for group, x_MD in frames.items():
        if x_MD.ndim != 2:
            raise ModelError(f"frames of group {group!r} have shape {x_MD.shape}, expected [M, D]")
    if initial is None:
        initial = [
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
    states = [State(np.array(first_KD, np.float32, order="C")) for first_KD in initial]
    step = AssignmentStep(threads, gpus, make_assigner)
    blocks = {group: step.blocks(x_MD) for group, x_MD in frames.items()}
    most_frames = max((len(x_MD) for x_MD in frames.values()), default=0)

    def assign_frames(requests: Sequence[Request]) -> list[ClusterStatistics]:
        totals = [ClusterStatistics.zero(*request.centroids_KD.shape) for request in requests]
        try:
            step.add(totals, requests, step.assigners(requests, most_frames), blocks)
        except NotFiniteError as e:
            raise ModelError(
                f"frame {e.row} is not finite; leave it out, or extract its features again"
            ) from None
        return totals

    try:
        for i, state in run_fits(fits, states, assign_frames):
            states[i] = state
    finally:
        step.close()
    return states
