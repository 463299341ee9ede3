"""What a configuration asks of a cluster: workers of so many cores and GPUs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gmp_atl_dist.config import RuntimeConfig, WorkersConfig
from gmp_atl_dist.ray_api.facts import Node, NodeGroup

_ROUNDING = 1e-6


def counted(number: float, what: str) -> str:
    return f"{number:g} {what}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class Demand:
    """Equal processes of one stage. ``together``: none begins before the fewest are there."""

    section: str
    fewest: int
    most: int
    cpus: float
    gpus: float
    together: bool = False
    resources: Mapping[str, float] = field(default_factory=dict)

    @property
    def of_each(self) -> str:
        gpus = f", {counted(self.gpus, 'GPU')}" if self.gpus else ""
        named = "".join(f", {amount:g} {name}" for name, amount in self.resources.items())
        return f"{counted(self.cpus, 'core')}{gpus}{named}"

    def __str__(self) -> str:
        count = f"{self.fewest}" if self.fewest == self.most else f"{self.fewest} to {self.most}"
        return f"{count} x ({self.of_each})"


def demands_of(config: RuntimeConfig) -> list[Demand]:
    """Every pool of processes that a run starts; no two of them at once, but for readers."""
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
    ]


def room_for(demand: Demand, nodes: Iterable[Node]) -> int:
    """Workers of ``demand`` that these nodes hold at once when nothing else runs."""
    return sum(_on_one(demand, node) for node in nodes)


def room_with_more(demand: Demand, nodes: Iterable[Node], groups: Iterable[NodeGroup]) -> float:
    """The same with all that an autoscaler could add; infinite where it has no limit."""
    added = 0.0
    for group in groups:
        each = _on_one(demand, group)
        if each:
            # Nodes of the group that are there already are counted twice: a limit errs upwards.
            added += math.inf if group.most is None else each * group.most
    return room_for(demand, nodes) + added


def whole_gpus(demand: Demand) -> bool:
    """Ray shares a GPU, or gives whole ones, but not one and a half."""
    return demand.gpus <= 1 or float(demand.gpus).is_integer()


def _on_one(demand: Demand, node: Node) -> int:
    at_once = math.floor(node.cpus / demand.cpus + _ROUNDING) if demand.cpus else 1 << 30
    for name, amount in demand.resources.items():
        offered = node.resources.get(name, 0.0)
        at_once = min(at_once, math.floor(offered / amount + _ROUNDING))
    if not demand.gpus:
        return at_once
    if demand.gpus < 1:
        # A share must lie on one GPU.
        by_gpu = int(node.gpus) * math.floor(1 / demand.gpus + _ROUNDING)
    else:
        by_gpu = math.floor(node.gpus / demand.gpus + _ROUNDING)
    return min(at_once, by_gpu)
