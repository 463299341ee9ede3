"""The work of ``cluster`` in a process of its pool: assignment steps, initialization, stability.

Shape suffixes: D hidden, K clusters.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gmp_atl_dist.clustering.assignment import Assigner, as_floats, make_assigner, nearest_ids
from gmp_atl_dist.clustering.assignment_step import AssignmentStep, fit_in_memory
from gmp_atl_dist.clustering.stability import adjusted_rand
from gmp_atl_dist.clustering.state import Fit, Request
from gmp_atl_dist.clustering.statistics import ClusterStatistics, NotFiniteError
from gmp_atl_dist.config import ClusterWorkersConfig
from gmp_atl_dist.device import pin_faiss_threads
from gmp_atl_dist.errors import ArtifactError, GmpAtlError
from gmp_atl_dist.inference.stored_frames import FrameSelection, PartFrames, SelectedFrameReader
from gmp_atl_dist.runtime import Task

_GIB = 1 << 30


@dataclass(frozen=True)
class Initialization:
    """Asks for a share of each group's frames, to initialize fits from."""

    shares: Mapping[str, float]
    seed: int


@dataclass(frozen=True)
class Stability:
    """Asks for the agreement of two fits from two seeds; the answer is None if they cannot be fitted.

    ``fits`` are fits with their frames. A task's payload is the number of its fit.
    """

    fits: Sequence[tuple[Fit, np.ndarray]]


Order = Initialization | Stability | Sequence[Request]
"""Requests ask for an assignment step."""
Answer = Mapping[str, np.ndarray] | float | None | Sequence[ClusterStatistics]


@dataclass(frozen=True)
class FitterArgument:
    selection: FrameSelection
    workers: ClusterWorkersConfig


def piece_task(name: str, layer: int, parts: Sequence[str], cost: float) -> Task:
    """A task over parts of a layer's features."""
    return Task(name, json.dumps({"layer": layer, "parts": list(parts)}), cost)


class Fitter:
    """Answers orders about the frames of a task's parts."""

    def __init__(self, argument: FitterArgument) -> None:
        pin_faiss_threads()
        workers = argument.workers
        self._step = AssignmentStep(workers.cpus, math.ceil(workers.gpus))
        self._reader = SelectedFrameReader(argument.selection, int(workers.memory_gib * _GIB))
        self._features = argument.selection.features

    def __call__(self, task: Task, order: Order) -> Answer:
        if isinstance(order, Stability):
            return _stability(*order.fits[int(task.payload)])
        payload = json.loads(task.payload)
        layer, names = int(payload["layer"]), list(payload["parts"])
        if isinstance(order, Initialization):
            return self._initialization_frames(layer, names, order)
        return self._assign(layer, names, order, int(task.cost))

    def _initialization_frames(
        self, layer: int, names: Sequence[str], order: Initialization
    ) -> Mapping[str, np.ndarray]:
        by_group: dict[str, list[np.ndarray]] = {}
        for part in self._reader.parts(layer, names, _working_bytes([], self._step)):
            for group, share in order.shares.items():
                if group in part.frames:
                    rows = part.initialization_frames(group, share, order.seed)
                    by_group.setdefault(group, []).append(rows)
        return {group: np.concatenate(rows) for group, rows in by_group.items()}

    def _assign(
        self, layer: int, names: Sequence[str], requests: Sequence[Request], frames: int
    ) -> Sequence[ClusterStatistics]:
        totals = [ClusterStatistics.zero(*request.centroids_KD.shape) for request in requests]
        assigners = self._step.assigners(requests, frames)
        working_bytes = _working_bytes(requests, self._step)
        for part in self._reader.parts(layer, names, working_bytes):
            self._add(totals, requests, assigners, part, layer)
        return totals

    def _add(
        self,
        totals: Sequence[ClusterStatistics],
        requests: Sequence[Request],
        assigners: Sequence[Assigner],
        part: PartFrames,
        layer: int,
    ) -> None:
        blocks = {group: self._step.blocks(x_MD) for group, x_MD in part.frames.items()}
        try:
            self._step.add(totals, requests, assigners, blocks)
        except NotFiniteError as e:
            raise ArtifactError(
                f"features of utterance {part.utterance_of(e.group, e.row)!r}, layer {layer}, in "
                f"{self._features.key.prefix} are not finite; run gmp-atl verify, and extract again "
                f"in a new root"
            ) from None


def _working_bytes(requests: Sequence[Request], step: AssignmentStep) -> int:
    """Memory of an assignment step beside the frames that are kept: a part being read, blocks, sums."""
    sums = sum(request.centroids_KD.size * 8 for request in requests)
    dim = max((request.centroids_KD.shape[1] for request in requests), default=1024)
    block = step.block_rows * dim * (2 + 4 + 8)
    return 2 * sums + step.threads * (sums + 2 * block) + (192 << 20)


def _stability(fit: Fit, x_MD: np.ndarray) -> float | None:
    """Adjusted Rand index of the labels of two fits that differ in their seed alone."""
    if len(x_MD) <= fit.k:
        return None
    x_MD = as_floats(x_MD)
    labels = []
    for seed in (fit.seed, fit.seed + 1):
        try:
            (state,) = fit_in_memory([replace(fit, seed=seed)], {fit.group: x_MD})
        except GmpAtlError:
            # This share of the frames may have too few different ones; if all have, the fit reports it.
            return None
        labels.append(nearest_ids(make_assigner(state.centroids_KD, fit.metric), x_MD))
    return adjusted_rand(*labels)
