"""What is free on the nodes of a cluster, counted by whole workers of the stages that run.

Ray places workers. This count decides when a stage may ask Ray for them: only when all of its workers have
room. So two gangs never hold half of their workers each and wait for the other half, which Ray alone does
not exclude for pools, and no stage waits inside of Ray for a stage that the count has put before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gmp_atl_dist.ray_api.facts import ClusterFacts, Node
from gmp_atl_dist.scheduling.demands import Demand

_ROUNDING = 1e-6
CPU, GPU = "CPU", "GPU"

Offers = Sequence[Mapping[str, float]]
"""What each node offers, by the names of resources."""


_MOST_NODES = 200
"""Of a group of an autoscaler; a plan tries every node for every stage."""


def offer_of(node: Node) -> dict[str, float]:
    """What a node offers."""
    return {CPU: node.cpus, GPU: node.gpus, **node.resources}


def with_autoscaler(cluster: ClusterFacts, of_use: int) -> Offers:
    """The nodes of a cluster with all that its autoscaler may add, at most ``of_use`` of each group.

    The limit of a group counts its nodes that are there already, and which these are is not known. So this is
    an upper bound.
    """
    found = [offer_of(node) for node in cluster.nodes]
    for group in cluster.groups:
        most = of_use if group.most is None else min(group.most, of_use)
        found += [offer_of(group) for _ in range(min(most, _MOST_NODES))]
    return found


@dataclass(frozen=True)
class Grant:
    """The room of a stage: so many workers of each of its demands."""

    demands: tuple[Demand, ...]
    workers: tuple[int, ...]


class Room:
    """Nodes with what is left of each. Room is taken worker by worker, on the first node that has it."""

    def __init__(self, nodes: Offers) -> None:
        self._left = [dict(node) for node in nodes]

    def hold(self, grant: Grant) -> None:
        """Take the room of a stage that runs. What has no room, as on a lost node, is not counted."""
        for demand, workers in zip(grant.demands, grant.workers, strict=True):
            self.take(demand, workers)

    def take(self, demand: Demand, most: int) -> int:
        """Take room for at most ``most`` workers; how many have it."""
        each = _resources(demand)
        taken = 0
        for node in self._left:
            while taken < most and _has(node, each):
                for name, amount in each.items():
                    node[name] = node.get(name, 0.0) - amount
                taken += 1
        return taken

    def copy(self) -> Room:
        return Room(self._left)

    def admit(self, demands: Sequence[Demand], whole: Offers) -> Grant | None:
        """Take the room of the fewest workers of every demand; None, and nothing taken, if one has none.

        A pool of independent workers that is larger than the ``whole`` empty cluster needs as many as the
        cluster can hold. A gang that is larger has no room.
        """
        trial, workers = self.copy(), []
        for demand in demands:
            fewest = demand.fewest
            if not demand.together:
                fewest = max(1, min(fewest, Room(whole).take(demand, fewest)))
            if trial.take(demand, fewest) < fewest:
                return None
            workers.append(fewest)
        self._left = trial._left
        return Grant(tuple(demands), tuple(workers))

    def reserve(self, demands: Sequence[Demand]) -> None:
        """Keep what is free now for a stage that has no room yet, so that later ones do not overtake it
        for ever."""
        for demand in demands:
            self.take(demand, demand.fewest)

    def widen(self, grant: Grant) -> Grant:
        """Take more workers up to the most of each demand, as far as there is room."""
        more = [
            n + self.take(demand, demand.most - n)
            for demand, n in zip(grant.demands, grant.workers, strict=True)
        ]
        return Grant(grant.demands, tuple(more))


def _resources(demand: Demand) -> dict[str, float]:
    counted = {CPU: demand.cpus, GPU: demand.gpus, **demand.resources}
    return {name: amount for name, amount in counted.items() if amount}


def _has(node: Mapping[str, float], each: Mapping[str, float]) -> bool:
    return bool(each) and all(node.get(n, 0.0) + _ROUNDING >= amount for n, amount in each.items())
