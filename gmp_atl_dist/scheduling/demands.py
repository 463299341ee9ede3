"""The resources that a configuration asks for: workers with their cores and GPUs."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from gmp_atl_dist.config import RuntimeConfig, StreamWorkersConfig, WorkersConfig
from gmp_atl_dist.ray_api.facts import Node, NodeGroup
from gmp_atl_dist.stages.base import Stage
from gmp_atl_dist.stages.trained import TrainedStage

_ROUNDING = 1e-6
_SECTIONS = {
    **dict.fromkeys(("ingest", "cluster", "label"), ""),
    **dict.fromkeys(("extract", "mfcc", "gender", "evaluate", "fusedlabel"), "extract"),
}
"""Kinds of stages that start workers, with the section of ``[runtime]``; empty: of the same name."""


def quantity(number: float, unit: str) -> str:
    """A number with its unit in the singular or plural: ``1 core``, ``2 cores``."""
    return f"{number:g} {unit}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class Demand:
    """Equal processes of one stage. ``together``: none starts before ``fewest`` have room."""

    section: str
    fewest: int
    most: int
    cpus: float
    gpus: float
    together: bool = False
    resources: Mapping[str, float] = field(default_factory=dict)

    @property
    def per_worker(self) -> str:
        gpus = f", {quantity(self.gpus, 'GPU')}" if self.gpus else ""
        named = "".join(f", {amount:g} {name}" for name, amount in self.resources.items())
        return f"{quantity(self.cpus, 'core')}{gpus}{named}"

    def __str__(self) -> str:
        count = f"{self.fewest}" if self.fewest == self.most else f"{self.fewest} to {self.most}"
        return f"{count} x ({self.per_worker})"


def demands_of(config: RuntimeConfig, unused: Collection[str] = ()) -> list[Demand]:
    """Every pool of processes that a run starts. Only readers run at the same time as another pool.

    ``unused`` names sections of ``runtime`` whose stages are not run.
    """
    sections: dict[str, WorkersConfig] = {
        "ingest": config.ingest,
        "extract": config.extract,
        "cluster": config.cluster,
        "label": config.label,
        "train": config.train,
    }
    return [
        Demand(
            f"runtime.{name}",
            section.min_workers,
            section.max_workers,
            section.cpus,
            section.gpus,
            together=name == "train",
            resources=section.resources,
        )
        for name, section in sections.items()
        if name not in unused
    ]


def section_of(stage: Stage) -> str | None:
    """The section of ``[runtime]`` with the workers of a stage; None if it works in the driver alone."""
    if isinstance(stage, TrainedStage):
        return "train"
    # Fused labels have the kind of stored ones, and compute features.
    kind = type(stage).__name__.lower() if stage.kind == "label" else stage.kind
    found = _SECTIONS.get(kind)
    return found if found is None else found or kind


def demands_of_stage(stage: Stage, config: RuntimeConfig) -> tuple[Demand, ...]:
    """The workers of a stage, and its readers where these have cores or resources of their own."""
    section = section_of(stage)
    if section is None:
        return ()
    demand = next(d for d in demands_of(config) if d.section == f"runtime.{section}")
    workers = getattr(config, section)
    if not isinstance(workers, StreamWorkersConfig) or not (
        workers.reader_cpus or workers.reader_resources
    ):
        return (demand,)
    readers = Demand(
        f"runtime.{section}.readers",
        1,
        workers.readers or 1,
        workers.reader_cpus,
        0.0,
        resources=workers.reader_resources,
    )
    return demand, readers


def with_workers(config: RuntimeConfig, section: str, workers: int) -> RuntimeConfig:
    """``config`` with at most ``workers`` workers in a section, where that has more."""
    before: WorkersConfig = getattr(config, section)
    if before.max_workers <= workers:
        return config
    most = (min(before.min_workers, workers), workers)
    narrowed = before.model_copy(update={"workers": most if most[0] < workers else workers})
    return config.model_copy(update={section: narrowed})


def room_for(demand: Demand, nodes: Iterable[Node]) -> int:
    """The number of workers of ``demand`` that fit on these nodes when nothing else runs."""
    return sum(_workers_on(demand, node) for node in nodes)


def room_with_more(demand: Demand, nodes: Iterable[Node], groups: Iterable[NodeGroup]) -> float:
    """The same with all nodes that an autoscaler could add; infinite if it has no limit."""
    added = 0.0
    for group in groups:
        each = _workers_on(demand, group)
        if each:
            # Existing nodes of the group are counted twice, so the result is an upper bound.
            added += math.inf if group.most is None else each * group.most
    return room_for(demand, nodes) + added


def _workers_on(demand: Demand, node: Node) -> int:
    at_once = math.floor(node.cpus / demand.cpus + _ROUNDING) if demand.cpus else 1 << 30
    for name, amount in demand.resources.items():
        offered = node.resources.get(name, 0.0)
        at_once = min(at_once, math.floor(offered / amount + _ROUNDING))
    if not demand.gpus:
        return at_once
    if demand.gpus < 1:
        # A fraction must fit on one GPU.
        by_gpu = int(node.gpus) * math.floor(1 / demand.gpus + _ROUNDING)
    else:
        by_gpu = math.floor(node.gpus / demand.gpus + _ROUNDING)
    return min(at_once, by_gpu)
