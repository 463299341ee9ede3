"""Assignment steps over frames in memory: in blocks, by group, on threads of a CPU or on devices.

Shape suffixes: M frames, D hidden, K clusters.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np

from gmp_atl_dist.clustering.assignment import (
    BLOCK_ROWS,
    Assigner,
    AssignerFactory,
    FaissAssigner,
)
from gmp_atl_dist.clustering.engines import EngineChoice, chosen_engine
from gmp_atl_dist.clustering.frame_parts import FramePart
from gmp_atl_dist.clustering.initialization import initial_centroids
from gmp_atl_dist.clustering.lloyd import run_fits
from gmp_atl_dist.clustering.state import Fit, Metric, Request, State
from gmp_atl_dist.clustering.statistics import ClusterStatistics, NotFiniteError
from gmp_atl_dist.device import one_faiss_thread
from gmp_atl_dist.errors import ModelError

_PART_ROWS = 1 << 20
"""Frames in memory are given to a step in parts, which may stay on a GPU. A multiple of all block sizes."""

T = TypeVar("T")
R = TypeVar("R")


class Step(Protocol):
    """Gives cluster statistics of frames; in memory, on threads or on devices."""

    def over(
        self, requests: Sequence[Request], parts: Iterable[FramePart]
    ) -> list[ClusterStatistics]:
        """The statistics of each request over the frames of its group in all parts, in order.

        Raises:
            NotFiniteError: with the part, the group, and the row of its frames.
        """
        ...

    def working_bytes(self, requests: Sequence[Request]) -> int:
        """Memory of a step beside the frames that are kept: a part being read, blocks, sums."""
        ...

    def forget(self) -> None:
        """Keep no frame any longer: those of other parts may have the same keys now."""
        ...

    def close(self) -> None: ...


class AssignmentStep:
    """Cluster statistics on a CPU, on ``threads`` threads with one FAISS thread each.

    A block is prepared once for all requests of one metric. Statistics of blocks are added in order, so
    that they do not depend on the number of threads. Threads default to ``OMP_NUM_THREADS``.
    """

    def __init__(
        self, threads: int | None = None, make_assigner: AssignerFactory = FaissAssigner
    ) -> None:
        self.threads = threads or int(os.environ.get("OMP_NUM_THREADS", "1"))
        self._make_assigner = make_assigner
        self._pool = ThreadPoolExecutor(self.threads, initializer=one_faiss_thread)

    def close(self) -> None:
        self._pool.shutdown()

    def forget(self) -> None:
        """Nothing is kept here: the reader of frames keeps them."""

    def working_bytes(self, requests: Sequence[Request]) -> int:
        sums = sum(request.centroids_KD.size * 8 for request in requests)
        dim = max((request.centroids_KD.shape[1] for request in requests), default=1024)
        block = BLOCK_ROWS * dim * (2 + 4 + 8)
        return 2 * sums + self.threads * (sums + 2 * block) + (192 << 20)

    def over(
        self, requests: Sequence[Request], parts: Iterable[FramePart]
    ) -> list[ClusterStatistics]:
        totals = [ClusterStatistics.zero(*request.centroids_KD.shape) for request in requests]
        assigners = [self._make_assigner(r.centroids_KD, r.metric) for r in requests]
        for part in parts:
            frames = part.load()
            for group in dict.fromkeys(request.group for request in requests):
                numbers = [i for i, request in enumerate(requests) if request.group == group]
                if group in frames:
                    of_group = [(totals[i], assigners[i]) for i in numbers]
                    try:
                        self._add(of_group, frames[group])
                    except NotFiniteError as e:
                        raise NotFiniteError(e.row, group, part.key) from None
        return totals

    def _add(
        self, of_group: Sequence[tuple[ClusterStatistics, Assigner]], x_MD: np.ndarray
    ) -> None:
        """Add the statistics of a group's frames to the totals of the requests for that group."""

        def work(block_MD: np.ndarray) -> list[ClusterStatistics]:
            return _of_block(block_MD, [assigner for _, assigner in of_group])

        first_row = 0
        blocks = (x_MD[i : i + BLOCK_ROWS] for i in range(0, len(x_MD), BLOCK_ROWS))
        for block_MD, result in self._in_order(work, blocks):
            if isinstance(result, NotFiniteError):
                raise NotFiniteError(first_row + result.row)
            for (total, _), statistics in zip(of_group, result, strict=True):
                total.add(statistics)
            first_row += len(block_MD)

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


def _of_block(x_MD: np.ndarray, assigners: Sequence[Assigner]) -> list[ClusterStatistics]:
    prepared: dict[Metric, np.ndarray] = {}
    statistics: list[ClusterStatistics] = []
    for assigner in assigners:
        if assigner.metric not in prepared:
            prepared[assigner.metric] = assigner.prepared(x_MD)
        statistics.append(ClusterStatistics.of(prepared[assigner.metric], assigner))
    return statistics


def _resolved(item: T, future: Future[R]) -> tuple[T, R | NotFiniteError]:
    try:
        return item, future.result()
    except NotFiniteError as e:
        return item, e


def make_step(engine: EngineChoice, threads: int | None = None, gpus: float = 0) -> Step:
    """The step of an engine: FAISS on the threads of a CPU, or either engine on devices.

    Raises:
        ModelError: there are fewer GPUs than ``gpus``, or FAISS sees fewer.
    """
    chosen = chosen_engine(engine, math.ceil(gpus))
    if chosen == "faiss" and not gpus:
        return AssignmentStep(threads)
    # torch is not imported where FAISS does the work on a CPU.
    from gmp_atl_dist.clustering.device_step import device_step

    return device_step(chosen, gpus)


def fit_in_memory(
    fits: Sequence[Fit],
    frames: Mapping[str, np.ndarray],
    *,
    threads: int | None = None,
    gpus: float = 0,
    engine: EngineChoice = "auto",
    initial: Sequence[np.ndarray] | None = None,
    step: Step | None = None,
) -> list[State]:
    """Fit codebooks of frames in memory: the whole of k-means in one process.

    ``frames`` holds fp16 or fp32 [M, D] by group ("all" is the group of everybody). ``initial`` are the
    first centroids of each fit, fp32 [K, D]; without them each fit chooses its own. Threads default to
    ``OMP_NUM_THREADS``. A ``step`` takes the place of ``threads``, ``gpus`` and ``engine``.

    Raises:
        ConfigError: there are fewer (different) frames than clusters.
        ModelError: a frame is not finite, or there are fewer GPUs than ``gpus``.
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
    most_frames = max((len(x_MD) for x_MD in frames.values()), default=0)
    working = step or make_step(engine, threads, gpus)
    working.forget()
    parts = [_rows_of(frames, first) for first in range(0, most_frames, _PART_ROWS)]

    def assign_frames(requests: Sequence[Request]) -> list[ClusterStatistics]:
        try:
            return working.over(requests, parts)
        except NotFiniteError as e:
            raise ModelError(
                f"frame {int(e.part) + e.row} is not finite; leave it out, or extract its features again"
            ) from None

    try:
        for i, state in run_fits(fits, states, assign_frames):
            states[i] = state
    finally:
        working.forget()
        if step is None:
            working.close()
    return states


def _rows_of(frames: Mapping[str, np.ndarray], first: int) -> FramePart:
    rows = slice(first, first + _PART_ROWS)
    return FramePart(str(first), lambda: {group: x_MD[rows] for group, x_MD in frames.items()})
