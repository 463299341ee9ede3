"""Removes a run and what no other run uses: artefacts, checkpoints, logs, the record.

An artefact is kept if the record of another run names it, if the remaining stages of another run that is
not done would find it, or if an artefact that is kept was made from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.run_log import FOLDER as LOGS_OF_LIBRARIES
from gmp_atl_dist.runs.in_use import BY_PRODUCTS, keys_planned, named_by
from gmp_atl_dist.runs.live import LiveRuns
from gmp_atl_dist.runs.names import get_run
from gmp_atl_dist.store.artifact import Artifact, find_artifact, list_artifacts
from gmp_atl_dist.store.checkpoints import RAY_RUNS
from gmp_atl_dist.store.checkpoints import ROOT as CHECKPOINTS
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.leases import live_leases
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.runs import RUNS, RunRecord, read_run, run_names

_THREADS = 16
_LOGS = "logs"
_SHORT = 12


@dataclass(frozen=True)
class Removal:
    """What the removal of a run deletes.

    Attributes:
        artifacts: to be deleted, those that others are made from last.
        kept: artefacts of the run that others use.
        prefixes: every object or folder to be deleted, in order.
        num_bytes: of all objects below ``prefixes``.
        num_objects: their number.
    """

    name: str
    artifacts: tuple[ArtifactKey, ...]
    kept: tuple[ArtifactKey, ...]
    prefixes: tuple[str, ...]
    num_bytes: int
    num_objects: int


def plan_removal(store: Store, name: str) -> Removal:
    """What ``remove`` would delete. Deletes nothing.

    Raises:
        ConfigError: there is no such run, it is running, or another command uses its artefacts.
        ArtifactError: the record of this or of another run is damaged, or a lease is, so it is not known
            what is used.
    """
    record = get_run(store, name)
    if LiveRuns(store).find([name]):
        raise ConfigError(
            f"run {name} is running (last seen on {record.attempts[-1].machine.host}); stop it first"
        )
    sealed = _all_artifacts(store)
    mine = _with_inputs(named_by(record), sealed)
    used: set[ArtifactKey] = set()
    for other in run_names(store):
        found = None if other == name else read_run(store, other)
        if found is not None:
            used |= named_by(found) | keys_planned(found, store, sealed)
    # What nobody's record names may belong to a run of an older release; by-products do not count.
    unnamed = {key for key in sealed if key not in mine and key.kind not in BY_PRODUCTS}
    used = _with_inputs(used | unnamed, sealed)
    deleted = mine - used
    deleted |= _by_products_of(deleted, used, sealed)
    _check_unleased(store, name, deleted)
    in_order = _consumers_first(deleted, sealed)
    prefixes = [prefix for key in in_order for prefix in _prefixes_of(key)]
    prefixes += _logs_of(deleted, store)
    prefixes += _library_logs(record, store)
    prefixes.append(f"{RUNS}/{name}")
    entries = [entry for prefix in prefixes for entry in _entries(store, prefix)]
    return Removal(
        name=name,
        artifacts=tuple(in_order),
        kept=tuple(sorted(mine - deleted, key=lambda k: (k.kind, k.fingerprint))),
        prefixes=tuple(prefixes),
        num_bytes=sum(size for _, size in entries),
        num_objects=len(entries),
    )


def _check_unleased(store: Store, name: str, keys: Iterable[ArtifactKey]) -> None:
    of_fingerprint = {key.fingerprint: key for key in keys}
    for lease in live_leases(store):
        for fingerprint in lease.fingerprints:
            key = of_fingerprint.get(fingerprint)
            if key is not None:
                raise ConfigError(
                    f"{lease.holder} uses {key.kind} {fingerprint[:_SHORT]} of run {name}; stop it first, or "
                    f"wait until it is done"
                )


def remove(store: Store, removal: Removal) -> None:
    """Delete it. If it is interrupted, it can be planned and done again: the record goes last."""
    for key in removal.artifacts:
        # Without its manifest, an artefact that is half deleted does not exist.
        store.delete(key.manifest_path)
    for prefix in removal.prefixes:
        store.delete(prefix)


def _all_artifacts(store: Store) -> dict[ArtifactKey, Artifact]:
    keys = list_artifacts(store)
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda key: find_artifact(store, key), keys)
        return {key: artifact for key, artifact in zip(keys, found, strict=True) if artifact}


def _with_inputs(
    keys: Iterable[ArtifactKey], sealed: dict[ArtifactKey, Artifact]
) -> set[ArtifactKey]:
    """The keys, and those of everything that they were made from. Manifests name inputs by identity."""
    by_identity: dict[str, list[ArtifactKey]] = {}
    for key, artifact in sealed.items():
        by_identity.setdefault(artifact.identity, []).append(key)
    found: set[ArtifactKey] = set()
    waiting = list(keys)
    while waiting:
        key = waiting.pop()
        if key in found:
            continue
        found.add(key)
        artifact = sealed.get(key)
        for identity in () if artifact is None else artifact.manifest.inputs.values():
            waiting += by_identity.get(identity, ())
    return found


def _by_products_of(
    deleted: set[ArtifactKey], used: set[ArtifactKey], sealed: dict[ArtifactKey, Artifact]
) -> set[ArtifactKey]:
    """By-products that were made from something that is deleted. Imported codebooks have no inputs."""
    identities = {sealed[key].identity for key in deleted if key in sealed}
    return {
        key
        for key, artifact in sealed.items()
        if key.kind in BY_PRODUCTS
        and key not in used
        and identities & set(artifact.manifest.inputs.values())
    }


def _consumers_first(
    keys: set[ArtifactKey], sealed: dict[ArtifactKey, Artifact]
) -> list[ArtifactKey]:
    """In an order in which no artefact is left whose inputs are gone."""
    depth = {key: len(_with_inputs([key], sealed)) for key in keys}
    return sorted(keys, key=lambda key: (-depth[key], key.kind, key.fingerprint))


def _prefixes_of(key: ArtifactKey) -> Iterator[str]:
    yield key.prefix
    yield f"{CHECKPOINTS}/{key.fingerprint}"
    yield f"{RAY_RUNS}/{key.fingerprint}"


def _logs_of(keys: set[ArtifactKey], store: Store) -> list[str]:
    """Folders of event files: they end with a fingerprint, or with its first 12 characters."""
    endings = tuple(key.fingerprint for key in keys)
    short = tuple(f"-{fingerprint[:_SHORT]}" for fingerprint in endings)
    folders = {entry.path.rpartition("/")[0] for entry in store.list(_LOGS)}
    return sorted(folder for folder in folders if folder.endswith((*endings, *short)))


def _library_logs(record: RunRecord, store: Store) -> list[str]:
    """What the driver and the workers printed, as far as it lies below the root."""
    names = {attempt.log.rpartition("/")[2] for attempt in record.attempts if attempt.log}
    folders = tuple(f"{LOGS_OF_LIBRARIES}/{name.removesuffix('.log')}/" for name in names)
    return [
        entry.path
        for entry in store.list(LOGS_OF_LIBRARIES)
        if entry.path.rpartition("/")[2] in names or entry.path.startswith(folders)
    ]


def _entries(store: Store, prefix: str) -> list[tuple[str, int]]:
    """(path, bytes) of the object ``prefix``, or of every object below it."""
    if prefix.startswith(f"{LOGS_OF_LIBRARIES}/"):
        return [(e.path, e.size) for e in store.list(LOGS_OF_LIBRARIES) if e.path == prefix]
    return [(e.path, e.size) for e in store.list(prefix)]
