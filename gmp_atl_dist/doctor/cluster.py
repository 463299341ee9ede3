"""Ray: reached, of our version, and with room for what the configuration asks."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version

from gmp_atl_dist.config import RuntimeConfig
from gmp_atl_dist.doctor.demands import (
    Demand,
    counted,
    demands_of,
    room_for,
    room_with_more,
    whole_gpus,
)
from gmp_atl_dist.doctor.findings import Finding, fatal, warning
from gmp_atl_dist.ray_api.facts import (
    ClusterFacts,
    Unanswered,
    ask_cluster,
    configured_address,
)

_CHECK = "ray"
_ROOM = "resources"
_REMEDIES = {
    "unreachable": "check runtime.ray_address or RAY_ADDRESS (HOST:6379), that the head is up, and "
    "network policies; without an address a Ray of our own is started",
    "refused": "set RAY_AUTH_MODE=token and the cluster's RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH",
    "address": "give HOST:PORT of the head's control service, mostly port 6379; http:// and port "
    "8265 are for gmp-atl submit",
}


@dataclass(frozen=True)
class Versions:
    ray: str
    python: str

    @classmethod
    def ours(cls) -> Versions:
        """Of the environment that this runs in."""
        return cls(version("ray"), platform.python_version())


def check_cluster(
    config: RuntimeConfig, timeout_s: float, expected: Versions | None = None
) -> Iterator[Finding]:
    """Ask the cluster that the run would use. ``expected`` are our own versions unless given."""
    address = configured_address(config)
    facts = ask_cluster(address, timeout_s)
    item = address or "a Ray of our own on this machine"
    if isinstance(facts, Unanswered):
        yield fatal(_CHECK, item, facts.said, _REMEDIES[facts.failed])
        return
    cpus, gpus = (sum(getattr(n, kind) for n in facts.nodes) for kind in ("cpus", "gpus"))
    parts = ((len(facts.nodes), "node"), (cpus, "core"), (gpus, "GPU"))
    value = ", ".join(counted(number, what) for number, what in parts)
    yield Finding(_CHECK, item, value)
    yield from compare_versions(item, facts, expected or Versions.ours())
    yield from _shared_root(config, facts)
    yield from check_room(config, facts)


def compare_versions(item: str, facts: ClusterFacts, expected: Versions) -> Iterator[Finding]:
    """Ray refuses a driver of another version of Ray or of Python, to the patch."""
    pairs = (
        ("Ray", facts.ray_version, expected.ray),
        ("Python", facts.python_version, expected.python),
    )
    for name, theirs, ours in pairs:
        if theirs and theirs != ours:
            yield fatal(
                _CHECK,
                item,
                f"{name} {theirs} there, {ours} here",
                "use the cluster's image here, or submit the run as a job, which runs in it",
            )


def check_room(config: RuntimeConfig, facts: ClusterFacts) -> Iterator[Finding]:
    """Whether the cluster can ever give what each section asks."""
    for demand in demands_of(config):
        yield _room(demand, facts)
    extract = config.extract
    say = warning if facts.autoscaled else fatal
    absent = _absent(extract.reader_resources, facts)
    if absent:
        yield say(
            _ROOM,
            "runtime.extract.reader_resources",
            f"no node offers {', '.join(absent)}",
            "name what a group of nodes offers, or wait for those nodes",
        )
    one = extract.cpus + extract.reader_cpus
    total = sum(node.cpus for node in facts.nodes)
    if extract.reader_cpus and total < one:
        yield say(
            _ROOM,
            "runtime.extract.reader_cpus",
            f"a reader and a worker need {one:g} cores at once, there are {total:g}",
            "set reader_cpus = 0, so that readers share the workers' cores",
        )


def _room(demand: Demand, facts: ClusterFacts) -> Finding:
    item = f"{demand.section}: {demand}"
    if not whole_gpus(demand):
        return fatal(_ROOM, item, counted(demand.gpus, "GPU"), "give a share of one, or whole ones")
    now = room_for(demand, facts.nodes)
    if now >= demand.fewest:
        return Finding(_ROOM, item, f"room for {min(now, demand.most)} at once")
    absent = _absent(demand.resources, facts)
    most = max(facts.nodes, key=lambda n: (n.gpus if demand.gpus else 0, n.cpus), default=None)
    if absent:
        value = f"no node offers {', '.join(absent)}"
    elif demand.gpus and not any(node.gpus for node in facts.nodes):
        value = "no node has a GPU"
    elif now == 0:
        largest = (
            f", the largest has {counted(most.cpus, 'core')}, {counted(most.gpus, 'GPU')}"
            if most
            else ""
        )
        value = f"no node can hold one{largest}"
    else:
        value = f"room for {now} at once"
    return _too_little(demand, facts, item, value, now)


def _absent(asked: Mapping[str, float], facts: ClusterFacts) -> list[str]:
    """Ray's custom resources that no node offers yet."""
    return [name for name in asked if not any(node.resources.get(name) for node in facts.nodes)]


def _too_little(demand: Demand, facts: ClusterFacts, item: str, value: str, now: int) -> Finding:
    could = room_with_more(demand, facts.nodes, facts.groups)
    if facts.autoscaled and (not facts.groups or could >= demand.fewest):
        limits = "" if facts.groups else ", whose limits it does not tell"
        remedy = f"the run waits for the autoscaler{limits}; check that it may add such nodes"
        return warning(_ROOM, item, value, remedy)
    lower = f"change {demand.section}.workers, cpus, gpus or resources, or add nodes"
    if facts.autoscaled:
        value += f", for {could:g} with all that the autoscaler may add"
    if could and not demand.together:
        # Stages of independent tasks make do with the workers that there is room for.
        return warning(_ROOM, item, value, f"the others never start: {lower}")
    return fatal(_ROOM, item, value, lower)


def _shared_root(config: RuntimeConfig, facts: ClusterFacts) -> Iterator[Finding]:
    folders = [
        f"runtime.{name} {uri}"
        for name, uri in (("root", config.root), ("corpus", config.corpus))
        if not uri.startswith("s3://")
    ]
    if folders and len(facts.nodes) > 1:
        yield warning(
            "store",
            ", ".join(folders),
            f"a folder, and the cluster has {len(facts.nodes)} nodes",
            "every node must see the same folder under that path; else use s3://",
        )
