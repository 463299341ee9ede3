"""The work of ``cluster`` in a process of its pool: assignment steps, initialization, stability.

Shape suffixes: D hidden, K clusters.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gmp_atl_dist.clustering.assignment import as_floats, make_assigner, nearest_ids
from gmp_atl_dist.clustering.assignment_step import Step, fit_in_memory, make_step
from gmp_atl_dist.clustering.engines import Engine, EngineChoice, chosen_engine
from gmp_atl_dist.clustering.frame_parts import FramePart
from gmp_atl_dist.clustering.stability import adjusted_rand
from gmp_atl_dist.clustering.state import Fit, Request
from gmp_atl_dist.clustering.statistics import ClusterStatistics, NotFiniteError
from gmp_atl_dist.config import ClusterWorkersConfig
from gmp_atl_dist.device import pin_faiss_threads
from gmp_atl_dist.errors import ArtifactError, GmpAtlError
from gmp_atl_dist.inference.stored_frames import FrameSelection, SelectedFrameReader
from gmp_atl_dist.runtime import Task

_GIB = 1 << 30


@dataclass(frozen=True)
class WhichEngine:
    """Asks which engine this process would take: the configuration may leave it to what is installed."""


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
    engine: EngineChoice = "auto"


@dataclass(frozen=True)
class Assign:
    """Asks for an assignment step, by one engine in all processes."""

    requests: Sequence[Request]
    engine: EngineChoice = "auto"


Order = WhichEngine | Initialization | Stability | Assign
Answer = Mapping[str, np.ndarray] | float | str | None | Sequence[ClusterStatistics]


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
        self._workers = argument.workers
        self._gpus = math.ceil(argument.workers.gpus)
        self._engine: Engine = chosen_engine(argument.workers.engine, self._gpus)
        self._step = self._make_step()
        self._reader = SelectedFrameReader(
            argument.selection, int(argument.workers.memory_gib * _GIB), self._empty
        )
        self._features = argument.selection.features
        self._layer = -1

    def __call__(self, task: Task, order: Order) -> Answer:
        if isinstance(order, WhichEngine):
            return self._engine
        if not isinstance(order, Initialization):
            self._use(order.engine)
        if isinstance(order, Stability):
            return self._stability(*order.fits[int(task.payload)])
        payload = json.loads(task.payload)
        layer, names = int(payload["layer"]), list(payload["parts"])
        if isinstance(order, Initialization):
            return self._initialization_frames(layer, names, order)
        return self._assign(layer, names, order.requests)

    def _make_step(self) -> Step:
        return make_step(self._engine, self._workers.cpus, self._workers.gpus)

    def _use(self, engine: EngineChoice) -> None:
        """Use the engine that all processes of the fit use."""
        if engine not in ("auto", self._engine):
            self._step.close()
            self._engine = engine
            self._step = self._make_step()

    def _empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        if not self._gpus:
            return np.empty(shape, dtype)
        from gmp_atl_dist.clustering.device import empty_pinned

        return empty_pinned(shape, dtype)

    def _initialization_frames(
        self, layer: int, names: Sequence[str], order: Initialization
    ) -> Mapping[str, np.ndarray]:
        by_group: dict[str, list[np.ndarray]] = {}
        for part in self._reader.parts(layer, names, self._step.working_bytes([])):
            for group, share in order.shares.items():
                if group in part.frames:
                    rows = part.initialization_frames(group, share, order.seed)
                    by_group.setdefault(group, []).append(rows)
        return {group: np.concatenate(rows) for group, rows in by_group.items()}

    def _assign(
        self, layer: int, names: Sequence[str], requests: Sequence[Request]
    ) -> Sequence[ClusterStatistics]:
        if layer != self._layer:
            self._step.forget()
            self._layer = layer
        working_bytes = self._step.working_bytes(requests)

        def part(name: str) -> FramePart:
            return FramePart(
                name,
                lambda: self._reader.part(layer, name, working_bytes).frames,
                lambda: self._reader.forget(name),
            )

        try:
            return self._step.over(requests, (part(name) for name in names))
        except NotFiniteError as e:
            utterance, frame = self._reader.frame_of(layer, e.part, e.group, e.row)
            raise ArtifactError(
                f"features of utterance {utterance!r}, layer {layer}, in "
                f"{self._features.key.prefix} are not finite at frame {frame}; run gmp-atl verify, and "
                f"extract again in a new root"
            ) from None

    def _stability(self, fit: Fit, x_MD: np.ndarray) -> float | None:
        """Adjusted Rand index of the labels of two fits that differ in their seed alone."""
        if len(x_MD) <= fit.k:
            return None
        x_MD = as_floats(x_MD)
        labels = []
        for seed in (fit.seed, fit.seed + 1):
            try:
                (state,) = fit_in_memory(
                    [replace(fit, seed=seed)], {fit.group: x_MD}, step=self._step
                )
            except GmpAtlError:
                # This share of the frames may have too few different ones; if all have, the fit reports
                # it.
                return None
            assigner = make_assigner(state.centroids_KD, fit.metric, self._gpus, self._engine)
            labels.append(nearest_ids(assigner, x_MD))
        return adjusted_rand(*labels)
