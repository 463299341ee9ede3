"""Ray: whether it answers, has our versions, and has room for what the configuration asks for."""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version

from gmp_atl_dist.config import RunConfig, RuntimeConfig
from gmp_atl_dist.doctor.findings import Finding, fatal, warning
from gmp_atl_dist.doctor.idle import check_idle
from gmp_atl_dist.ray_api.facts import (
    ClusterFacts,
    Unanswered,
    ask_cluster,
    configured_address,
)
from gmp_atl_dist.scheduling.demands import (
    Demand,
    demands_of,
    quantity,
    room_for,
    room_with_more,
)
from gmp_atl_dist.uris import SHARED

_CHECK = "ray"
_ROOM = "resources"
_REMEDIES = {
    "unreachable": "check runtime.ray_address or RAY_ADDRESS (HOST:6379), the head, and network "
    "policies; without an address the run starts a private Ray",
    "refused": "set RAY_AUTH_MODE=token and the cluster's RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH",
    "address": "give HOST:PORT of the head's control service, usually port 6379; http:// and port "
    "8265 are for gmp-atl submit",
}


@dataclass(frozen=True)
class Versions:
    ray: str
    python: str

    @classmethod
    def ours(cls) -> Versions:
        """The versions in the current environment."""
        return cls(version("ray"), platform.python_version())


def check_cluster(
    config: RuntimeConfig,
    timeout_s: float,
    expected: Versions | None = None,
    unused: Collection[str] = (),
    whole: RunConfig | None = None,
) -> Iterator[Finding]:
    """Ask the cluster that the run would use.

    Args:
        config: where the cluster is, and what the run asks of it.
        timeout_s: how long an answer is waited for.
        expected: the current versions unless given.
        unused: sections of ``config`` whose stages are not run.
        whole: the configuration whose ``runtime`` this is; None: what its stages leave idle is not checked.
    """
    address = configured_address(config)
    facts = ask_cluster(address, timeout_s)
    item = address or "a private Ray on this machine"
    if isinstance(facts, Unanswered):
        yield fatal(_CHECK, item, facts.said, _REMEDIES[facts.failed])
        return
    cpus, gpus = (sum(getattr(n, kind) for n in facts.nodes) for kind in ("cpus", "gpus"))
    parts = ((len(facts.nodes), "node"), (cpus, "core"), (gpus, "GPU"))
    value = ", ".join(quantity(number, unit) for number, unit in parts)
    yield Finding(_CHECK, item, value)
    yield from compare_versions(item, facts, expected or Versions.ours())
    yield from _shared_root(config, facts)
    yield from check_room(config, facts, unused)
    if whole is not None:
        yield from check_idle(whole, facts)


def compare_versions(item: str, facts: ClusterFacts, expected: Versions) -> Iterator[Finding]:
    """Ray rejects a driver with another version of Ray or Python, including the patch version."""
    pairs = (
        ("Ray", facts.ray_version, expected.ray),
        ("Python", facts.python_version, expected.python),
    )
    for name, theirs, ours in pairs:
        if theirs and theirs != ours:
            yield fatal(
                _CHECK,
                item,
                f"{name} {theirs} on the cluster, {ours} here",
                "use the cluster's image here, or submit the run as a job, which runs in that image",
            )


def check_room(
    config: RuntimeConfig, facts: ClusterFacts, unused: Collection[str] = ()
) -> Iterator[Finding]:
    """Whether the cluster can provide what each section asks for, now or later."""
    for demand in demands_of(config, unused):
        yield _room(demand, facts)
    extract = config.extract
    finding = warning if facts.autoscaled else fatal
    missing = _missing_resources(extract.reader_resources, facts)
    if missing:
        yield finding(
            _ROOM,
            "runtime.extract.reader_resources",
            f"no node offers {', '.join(missing)}",
            "name a resource that a group of nodes offers, or wait for those nodes",
        )
    needed = extract.cpus + extract.reader_cpus
    total = sum(node.cpus for node in facts.nodes)
    if extract.reader_cpus and total < needed:
        yield finding(
            _ROOM,
            "runtime.extract.reader_cpus",
            f"a reader and a worker need {needed:g} cores at the same time; there are {total:g}",
            "set reader_cpus = 0, so that readers share the workers' cores",
        )


def _room(demand: Demand, facts: ClusterFacts) -> Finding:
    item = f"{demand.section}: {demand}"
    now = room_for(demand, facts.nodes)
    if now >= demand.fewest:
        return Finding(_ROOM, item, f"room for {min(now, demand.most)} at the same time")
    missing = _missing_resources(demand.resources, facts)
    largest = max(facts.nodes, key=lambda n: (n.gpus if demand.gpus else 0, n.cpus), default=None)
    if missing:
        value = f"no node offers {', '.join(missing)}"
    elif demand.gpus and not any(node.gpus for node in facts.nodes):
        value = "no node has a GPU"
    elif now == 0:
        size = (
            f"; the largest has {quantity(largest.cpus, 'core')}, {quantity(largest.gpus, 'GPU')}"
            if largest
            else ""
        )
        value = f"no node has room for one{size}"
    else:
        value = f"room for {now} at the same time"
    return _not_enough(demand, facts, item, value, now)


def _missing_resources(asked: Mapping[str, float], facts: ClusterFacts) -> list[str]:
    """The requested custom resources of Ray that no node offers yet."""
    return [name for name in asked if not any(node.resources.get(name) for node in facts.nodes)]


def _not_enough(demand: Demand, facts: ClusterFacts, item: str, value: str, now: int) -> Finding:
    later = room_with_more(demand, facts.nodes, facts.groups)
    if facts.autoscaled and (not facts.groups or later >= demand.fewest):
        limits = "" if facts.groups else ", whose limits are unknown"
        remedy = f"the run waits for the autoscaler{limits}; check that it may add such nodes"
        return warning(_ROOM, item, value, remedy)
    remedy = f"change {demand.section}.workers, cpus, gpus or resources, or add nodes"
    if facts.autoscaled:
        value += f"; room for {later:g} with all nodes that the autoscaler may add"
    if later and not demand.together:
        # Stages of independent tasks run with fewer workers.
        return warning(_ROOM, item, value, f"the other workers never start: {remedy}")
    return fatal(_ROOM, item, value, remedy)


def _places(config: RuntimeConfig) -> list[tuple[str, str]]:
    """The keys that say where recordings lie, with their values."""
    if not config.corpora:
        return [("corpus", config.corpus)]
    return [(f"corpora.{name}", place) for name, place in config.corpora.items()]


def _shared_root(config: RuntimeConfig, facts: ClusterFacts) -> Iterator[Finding]:
    folders = [
        f"runtime.{name} {uri}"
        for name, uri in (("root", config.root), *_places(config))
        if not uri.startswith(SHARED)
    ]
    if folders and len(facts.nodes) > 1:
        yield warning(
            "store",
            ", ".join(folders),
            f"is a folder, and the cluster has {len(facts.nodes)} nodes",
            "every node must see the same folder at that path; otherwise use s3://, gs:// or az://",
        )
