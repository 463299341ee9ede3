"""Sets aside what is damaged and what was made from it, so that the next run makes exactly that again.

Nothing is deleted. Objects are moved below ``quarantine/TIME/``, whole ones, with the path that they had.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from gmp_atl_dist.errors import ArtifactError, ConfigError
from gmp_atl_dist.runs.in_use import InUse, find_in_use
from gmp_atl_dist.store.checkpoints import RAY_RUNS
from gmp_atl_dist.store.checkpoints import ROOT as CHECKPOINTS
from gmp_atl_dist.store.faults import Fault, Findings
from gmp_atl_dist.store.filesystem import Entry, Store
from gmp_atl_dist.store.graph import ArtifactGraph
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.runs import read_run, run_names

QUARANTINE = "quarantine"
"""The folder below a root. No other command reads it."""
WHY_NAME = "why.json"
_SHORT = 12


@dataclass(frozen=True)
class Repair:
    """What is set aside.

    Attributes:
        faults: all that is wrong.
        faulty: artefacts that cannot be used.
        dependants: artefacts that were made from them, or from an input that is not there, with the artefact
            or input that is the reason. Unfinished ones too.
        places: single objects and folders that are moved beside them: orphans, damaged checkpoints, damaged
            objects of artefacts that are not sealed.
        in_order: the artefacts to be moved: each before what it was made from.
        held: runs and other commands that work now and use some of it, with an artefact that they use.
    """

    faults: tuple[Fault, ...]
    faulty: tuple[ArtifactKey, ...]
    dependants: dict[ArtifactKey, str]
    places: tuple[str, ...]
    in_order: tuple[ArtifactKey, ...]
    held: dict[str, str]

    @property
    def is_empty(self) -> bool:
        return not (self.in_order or self.places)


def plan_repair(store: Store, findings: Findings, only: Sequence[str] = ()) -> Repair:
    """What is to be set aside. Moves nothing.

    Args:
        store: the root.
        findings: of :func:`gmp_atl_dist.store.faults.find_faults`.
        only: how fingerprints or places begin; of other faults nothing is moved.

    Raises:
        ConfigError: no fault is of one of ``only``.
        ArtifactError: the record of a run is damaged, so it is not known what it uses.
    """
    faults = [
        f for f in findings.of("damaged", "missing", "outdated", "orphaned") if _is_chosen(f, only)
    ]
    if only and not faults:
        raise ConfigError(f"nothing that is wrong below {store.uri} is of {', '.join(only)}")
    graph = findings.graph
    faulty = list(dict.fromkeys(fault.key for fault in faults if fault.key is not None))
    dependants = _dependants(graph, faulty, faults)
    unfinished = _unfinished(store, findings, faulty, dependants)
    # The faults last: as long as one is there, the next repair finds all that was made from it.
    in_order = [*unfinished, *graph.consumers_first(dependants), *graph.consumers_first(faulty)]
    dependants |= unfinished
    keys = {*faulty, *dependants}
    places = [p for f in faults if f.key is None and not f.needed_by for p in _places_of(f)]
    places = [p for p in places if not any(_is_below(p, key.prefix) for key in keys)]
    in_use = find_in_use(store, graph)
    return Repair(
        faults=findings.faults,
        faulty=tuple(faulty),
        dependants=dependants,
        places=tuple(dict.fromkeys(places)),
        in_order=tuple(in_order),
        held=_held(in_use, keys, places),
    )


def _is_chosen(fault: Fault, only: Sequence[str]) -> bool:
    if not only:
        return True
    names = [fault.place, *([fault.key.fingerprint] if fault.key else [])]
    names += fault.place.split("/")
    return any(name.startswith(chosen) for name in names for chosen in only)


def _dependants(
    graph: ArtifactGraph, faulty: Sequence[ArtifactKey], faults: Sequence[Fault]
) -> dict[ArtifactKey, str]:
    found: dict[ArtifactKey, str] = {}
    for key in faulty:
        for dependant in graph.dependants([key]):
            found.setdefault(dependant, f"{key.kind} {key.fingerprint[:_SHORT]}")
    for fault in faults:
        for key in (*fault.needed_by, *graph.dependants(fault.needed_by)):
            found.setdefault(key, fault.place)
    return {key: why for key, why in found.items() if key not in faulty}


def _unfinished(
    store: Store,
    findings: Findings,
    faulty: Sequence[ArtifactKey],
    dependants: dict[ArtifactKey, str],
) -> dict[ArtifactKey, str]:
    """Artefacts without a manifest that a run began after it had reached one of those.

    They have no list of inputs. The record of their run tells the order of its stages and their folds.
    """
    affected = {*faulty, *dependants}
    unsealed = {
        ArtifactKey(*f.place.split("/")[1:3])
        for f in findings.of("unsealed")
        if f.place.startswith("artifacts/")
    }
    found: dict[ArtifactKey, str] = {}
    for name in run_names(store) if unsealed and affected else ():
        record = read_run(store, name)
        stages = () if record is None else record.stages
        for number, stage in enumerate(stages):
            key = ArtifactKey(stage.kind, stage.fingerprint)
            before = next(
                (
                    s
                    for s in stages[:number]
                    if ArtifactKey(s.kind, s.fingerprint) in affected and s.fold in ("", stage.fold)
                ),
                None,
            )
            if key in unsealed and before is not None:
                found[key] = f"{before.kind} {before.fingerprint[:_SHORT]}"
    return found


def _places_of(fault: Fault) -> Iterator[str]:
    yield fault.place
    steps = fault.place.split("/")
    if fault.what == "damaged" and steps[0] == "artifacts" and len(steps) > 3:
        # Without its receipt the object is made again.
        yield f"{'/'.join(steps[:3])}/receipts/{'/'.join(steps[3:])}.json"


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def _held(in_use: InUse, keys: set[ArtifactKey], places: Sequence[str]) -> dict[str, str]:
    held: dict[str, str] = {}
    for key in keys:
        for run in in_use.by(key.fingerprint):
            held.setdefault(run, f"{key.kind} {key.fingerprint[:_SHORT]}")
    for place in places:
        for step in place.split("/"):
            for run in in_use.by(step):
                held.setdefault(run, place)
    return held


def set_aside(store: Store, repair: Repair, now: datetime | None = None) -> str:
    """Move all of it below ``quarantine/TIME/``, and return that folder.

    An object is copied as a whole before it is deleted, and a manifest is deleted before the objects that it
    names. What was made from something goes before it. So a move that is killed leaves faults that the next
    one finds, and never a dependant without the artefact that it was made from.

    Raises:
        ConfigError: a run or another command that works now uses some of it.
        ArtifactError: the store cannot be written.
    """
    if repair.held:
        names = "; ".join(f"{run} uses {what}" for run, what in sorted(repair.held.items()))
        raise ConfigError(f"nothing was moved, because this is used now: {names}; stop them first")
    moment = now or datetime.now(UTC)
    folder = f"{QUARANTINE}/{moment:%Y%m%dT%H%M%S%f}Z"
    store.put(f"{folder}/{WHY_NAME}", json.dumps(_why(repair), indent=1).encode())
    for place in repair.places:
        _move(store, place, folder, first="_record.json")
    for key in repair.in_order:
        _move(store, key.prefix, folder, first="_manifest.json")
        for prefix in (f"{CHECKPOINTS}/{key.fingerprint}", f"{RAY_RUNS}/{key.fingerprint}"):
            _move(store, prefix, folder, first="_record.json")
    return folder


def _move(store: Store, prefix: str, folder: str, *, first: str) -> None:
    """Copy every object below ``prefix``, compare the sizes, and then delete: those named ``first`` first."""
    entries = _entries(store, prefix)
    for entry in entries:
        store.copy(entry.path, f"{folder}/{entry.path}")
    sizes = {
        e.path.removeprefix(f"{folder}/"): e.size for e in _entries(store, f"{folder}/{prefix}")
    }
    for entry in entries:
        if sizes.get(entry.path) != entry.size:
            raise ArtifactError(
                f"{store.uri}/{folder}/{entry.path} has {sizes.get(entry.path)} bytes, expected "
                f"{entry.size}; nothing of {prefix} was deleted: try again"
            )
    for entry in entries:
        if entry.path.rpartition("/")[2] == first:
            store.delete(entry.path)
    store.delete(prefix)


def _entries(store: Store, path: str) -> list[Entry]:
    """The object at ``path``, or every object below it."""
    parent = path.rpartition("/")[0]
    if store.exists(path):
        return [entry for entry in store.list(parent) if entry.path == path]
    return store.list(path)


def _why(repair: Repair) -> dict[str, object]:
    return {
        "faults": [{"what": f.what, "place": f.place, "detail": f.detail} for f in repair.faults],
        "faulty": [key.prefix for key in repair.faulty],
        "dependants": {key.prefix: why for key, why in repair.dependants.items()},
        "places": list(repair.places),
    }
