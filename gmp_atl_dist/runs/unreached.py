"""What no configuration and no run that is kept reaches below a root, and its deletion."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.errors import ArtifactError, ConfigError
from gmp_atl_dist.runs.in_use import (
    BY_PRODUCTS,
    find_in_use,
    fingerprints_of,
    fingerprints_planned,
    is_written_now,
    named_by,
    who_works,
)
from gmp_atl_dist.runs.live import LiveRuns
from gmp_atl_dist.runs.names import find_record, known_runs
from gmp_atl_dist.store.checkpoints import RAY_RUNS
from gmp_atl_dist.store.checkpoints import ROOT as CHECKPOINTS
from gmp_atl_dist.store.filesystem import Entry, Store
from gmp_atl_dist.store.graph import ArtifactGraph
from gmp_atl_dist.store.leases import drop_dead_leases
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.runs import check_run_name, read_run, run_names

_FINGERPRINT = re.compile(r"[0-9a-f]{4,64}")
_IN_PATH = re.compile(r"(?:^|/)artifacts/[^/]+/([0-9a-f]{64})(?:/|$)")
_OUTSIDE = ("ingest", "backbone")
"""Kinds that stages make of files outside the root. Of others, those without inputs were imported."""
_LOOK_EVERY_S = 5.0


@dataclass(frozen=True)
class Unreached:
    """A folder that nothing reaches: an artefact, finished or not, or checkpoints without one.

    ``changed_s`` is the Unix time of its newest object. ``runs`` are the recorded runs that have reached it;
    none of them is kept.
    """

    key: ArtifactKey
    is_sealed: bool
    num_bytes: int
    num_objects: int
    changed_s: float
    runs: tuple[str, ...] = ()

    @property
    def prefixes(self) -> tuple[str, ...]:
        name = self.key.fingerprint
        checkpoints = (f"{CHECKPOINTS}/{name}", f"{RAY_RUNS}/{name}")
        return checkpoints if self.key.kind == CHECKPOINTS else (self.key.prefix, *checkpoints)


@dataclass(frozen=True)
class Collection:
    """What would be deleted, in the order in which it is: each artefact before what it was made from.

    Attributes:
        unreached: to be deleted.
        num_kept: artefacts that are reached.
        num_young: artefacts that nothing reaches, and that are too young or an input of a young one.
        in_use: artefacts that only a run or another command reaches that works now, with who it is.
        num_imported: imported artefacts, and what was made from them, that nothing reaches. They are kept:
            no run can make them again.
        live: tells which runs work now.
        working: the runs and other commands that worked when this was planned.
    """

    unreached: tuple[Unreached, ...]
    num_kept: int
    num_young: int
    in_use: dict[ArtifactKey, str]
    num_imported: int
    live: LiveRuns
    working: frozenset[str]


def plan_collection(
    store: Store,
    configs: Mapping[str, RunConfig],
    keep: Sequence[str] = (),
    *,
    older_than_s: float = 0.0,
    now_s: float | None = None,
) -> Collection:
    """What nothing that is kept reaches. Deletes nothing.

    Args:
        store: the root.
        configs: configurations by what people call them.
        keep: names of runs, fingerprints of artefacts (or how they begin), paths of a report.json below the
            root.
        older_than_s: only what has not changed for so long.
        now_s: Unix time; None: now.

    Raises:
        ConfigError: nothing is to be kept; something of ``keep`` is not there; or a configuration reaches no
            finished stage, so that it protects nothing.
        GmpAtlError: a configuration's corpus or model cannot be read, and the store does not tell what was
            made of them.
    """
    now_s = time.time() if now_s is None else now_s
    if not configs and not keep:
        raise ConfigError("nothing would be kept: name what is wanted, with --config or --keep")
    graph, unreadable = ArtifactGraph.read(store)
    if unreadable:
        names = ", ".join(f"{key.kind} {key.fingerprint[:12]}" for key in unreadable)
        raise ArtifactError(
            f"{store.uri}: the manifests of {names} cannot be used, so it is not known what they were made "
            f"from; run gmp-atl repair --root {store.uri} first"
        )
    wanted = {f for name, config in configs.items() for f in _of_config(store, graph, name, config)}
    wanted |= {f for name in keep for f in _of_name(store, graph, name)}
    kept = _with_by_products(graph, _sealed(graph, wanted))
    live = LiveRuns(store)
    used = find_in_use(store, graph, live)
    in_use = {key: used.by(key.fingerprint)[0] for key in graph.sealed if used.by(key.fingerprint)}
    imported = {
        key
        for key, artifact in graph.sealed.items()
        if not artifact.manifest.inputs and key.kind not in _OUTSIDE
    }
    imported |= graph.dependants(imported)
    found = _folders(store, graph)
    free = [
        item
        for item in found
        if item.key not in kept
        and item.key not in imported
        and item.key.fingerprint not in wanted
        and not used.by(item.key.fingerprint)
    ]
    young = {
        item.key
        for item in free
        if now_s - item.changed_s < older_than_s
        or (not item.is_sealed and is_written_now([item.changed_s], now_s))
    }
    young = graph.with_sources(young)
    old = {item.key: item for item in free if item.key not in young}
    order = [
        *(k for k in old if k not in graph.sealed),
        *graph.consumers_first(old.keys() & graph.sealed),
    ]
    return Collection(
        unreached=tuple(old[key] for key in order),
        num_kept=len(kept),
        num_young=len([item for item in free if item.key in young]),
        in_use={key: run for key, run in in_use.items() if key not in kept},
        num_imported=len(imported - kept - in_use.keys()),
        live=live,
        working=who_works(store, live),
    )


def collect(store: Store, plan: Collection, tell: Callable[[int, int], object]) -> None:
    """Delete it. ``tell`` is called with the number of folders that are deleted, and their number in all.

    A manifest goes before the objects that it names, and an artefact before what it was made from. So a
    deletion that is killed leaves no artefact that is half there, and none without its inputs.

    Raises:
        ConfigError: a run, or a command with a lease, has started meanwhile.
    """
    drop_dead_leases(store)
    looked_s = float("-inf")
    for number, item in enumerate(plan.unreached):
        if time.monotonic() - looked_s > _LOOK_EVERY_S:
            looked_s = time.monotonic()
            started = who_works(store, plan.live) - plan.working
            if started:
                raise ConfigError(
                    f"{', '.join(sorted(started))} has started meanwhile, and may use what was to be "
                    f"deleted; {number} of {len(plan.unreached)} folders are deleted: give the command again"
                )
        if item.is_sealed:
            store.delete(item.key.manifest_path)
        for prefix in item.prefixes:
            store.delete(prefix)
        tell(number + 1, len(plan.unreached))


def _sealed(graph: ArtifactGraph, fingerprints: set[str]) -> set[ArtifactKey]:
    return graph.with_sources(key for key in graph.sealed if key.fingerprint in fingerprints)


def _of_config(store: Store, graph: ArtifactGraph, name: str, config: RunConfig) -> set[str]:
    record = find_record(config, store)
    found = set(fingerprints_of(config, store, record))
    if record is not None:
        found |= {key.fingerprint for key in named_by(record)}
    if not any(key.fingerprint in found for key in graph.sealed):
        raise ConfigError(
            f"{name} reaches no finished stage below {store.uri}, so it would protect nothing; check "
            f"runtime.corpus and --root, or leave it out"
        )
    return found


def _of_name(store: Store, graph: ArtifactGraph, name: str) -> set[str]:
    in_path = _IN_PATH.search(name)
    prefix = in_path.group(1) if in_path else name
    record = None
    if in_path is None and _is_run_name(name):
        record = read_run(store, name)
    if record is not None:
        return {k.fingerprint for k in named_by(record)} | fingerprints_planned(record, store)
    if _FINGERPRINT.fullmatch(prefix):
        keys = [key for key in graph.sealed if key.fingerprint.startswith(prefix)]
        if len(keys) == 1:
            return {keys[0].fingerprint}
        if keys:
            raise ConfigError(
                f"--keep {name}: {len(keys)} artefacts begin with it; give more characters"
            )
    raise ConfigError(
        f"--keep {name}: no run and no artefact of that name below {store.uri}; {known_runs(store, name)}"
    )


def _is_run_name(name: str) -> bool:
    try:
        check_run_name(name)
    except ConfigError:
        return False
    return True


def _with_by_products(graph: ArtifactGraph, kept: set[ArtifactKey]) -> set[ArtifactKey]:
    """Also by-products that were made from kept artefacts alone."""
    found = set(kept)
    for key, artifact in graph.sealed.items():
        sources = graph.with_sources([key]) - {key}
        if key.kind in BY_PRODUCTS and artifact.manifest.inputs and sources and sources <= kept:
            found.add(key)
    return found


def _folders(store: Store, graph: ArtifactGraph) -> list[Unreached]:
    """Every artefact, finished or not, with its checkpoints; and checkpoints without an artefact."""
    entries: defaultdict[ArtifactKey, list[Entry]] = defaultdict(list)
    for entry in store.list("artifacts"):
        steps = entry.path.split("/")
        if len(steps) > 3:
            entries[ArtifactKey(steps[1], steps[2])].append(entry)
    of_training = _by_training(store.list(CHECKPOINTS))
    for key in entries:
        entries[key] += of_training.pop(key.fingerprint, [])
    for name, left in of_training.items():
        entries[ArtifactKey(CHECKPOINTS, name)] = left
    runs: defaultdict[str, list[str]] = defaultdict(list)
    for name in run_names(store):
        record = read_run(store, name)
        for key in () if record is None else named_by(record):
            runs[key.fingerprint].append(name)
    return [
        Unreached(
            key=key,
            is_sealed=key in graph.sealed,
            num_bytes=sum(entry.size for entry in of_key),
            num_objects=len(of_key),
            changed_s=max(entry.mtime_ns for entry in of_key) / 1e9,
            runs=tuple(runs.get(key.fingerprint, ())),
        )
        for key, of_key in entries.items()
    ]


def _by_training(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """The objects below ``checkpoints/NAME`` and ``checkpoints/_ray/NAME``, by NAME."""
    found: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        below = entry.path.removeprefix(f"{RAY_RUNS}/").removeprefix(f"{CHECKPOINTS}/")
        name, slash, _ = below.partition("/")
        if slash:
            found[name].append(entry)
    return found
