"""What is wrong below a root: damaged, missing, outdated, orphaned and unsealed, checkpoints included."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeAlias

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.checked import SHORT, difference
from gmp_atl_dist.store.checkpoints import RAY_RUNS, CheckpointRecord, Checkpoints
from gmp_atl_dist.store.checkpoints import ROOT as CHECKPOINTS
from gmp_atl_dist.store.filesystem import Entry, Store, UnreadableError
from gmp_atl_dist.store.graph import ArtifactGraph
from gmp_atl_dist.store.manifest import ArtifactKey, Receipt
from gmp_atl_dist.store.writer import ArtifactWriter

_THREADS = 16
_ARTIFACTS = "artifacts"

What: TypeAlias = Literal["damaged", "missing", "outdated", "orphaned", "unsealed"]


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        what: ``damaged``: it differs from what its manifest, receipt or record states. ``missing``: an object
            or an input is not there. ``outdated``: an input was made again since, with other bytes.
            ``orphaned``: nothing names it. ``unsealed``: it was begun and has no
            manifest or record; whoever began it continues it, or never will.
        place: an object or a folder, relative to the root.
        detail: in words.
        key: the artefact that cannot be used for it; None if an artefact is not, or not as a whole.
        needed_by: artefacts that were made from an input that is not there.
    """

    what: What
    place: str
    detail: str
    key: ArtifactKey | None = None
    needed_by: tuple[ArtifactKey, ...] = ()


@dataclass(frozen=True)
class Findings:
    """What was looked at, and what is wrong."""

    graph: ArtifactGraph
    faults: tuple[Fault, ...]
    num_artifacts: int
    num_checkpoints: int

    def of(self, *what: What) -> list[Fault]:
        return [fault for fault in self.faults if fault.what in what]


def find_faults(store: Store, tell: Callable[[int, int], object] = lambda *_: None) -> Findings:
    """Look at every artefact and every checkpoint below the root, and hash every object of them.

    ``tell`` is called with the number of artefacts and checkpoints looked at, and their number in all.
    """
    folders = _folders(store)
    graph, unreadable = ArtifactGraph.read(store)
    trainings = _trainings(store, graph)
    total = len(folders) + len(trainings)
    faults = [
        Fault("damaged", key.prefix, why.partition("; run ")[0], key)
        for key, why in unreadable.items()
    ]
    for number, (key, entries) in enumerate(folders.items(), 1):
        artifact = graph.sealed.get(key)
        if artifact is not None:
            faults += _of_sealed(artifact, entries)
        elif key not in unreadable:
            faults += _of_unsealed(store, key, entries)
        tell(number, total)
    faults += _lost_inputs(graph, unreadable)
    for key, names in graph.earlier_inputs().items():
        what = (
            f"it was made from an earlier {', '.join(names)}, which was made again with other bytes"
        )
        faults.append(Fault("outdated", key.prefix, what, key))
    num_checkpoints = 0
    for number, (name, is_sealed) in enumerate(trainings.items(), 1):
        count, found = _of_training(store, name, is_sealed=is_sealed)
        num_checkpoints += count
        faults += found
        tell(len(folders) + number, total)
    faults += _probes(store)
    num_artifacts = len(graph.sealed) + len(unreadable)
    return Findings(graph, tuple(faults), num_artifacts, num_checkpoints)


def _folders(store: Store) -> dict[ArtifactKey, list[Entry]]:
    """The objects of each folder of an artefact, sealed or not."""
    found: defaultdict[ArtifactKey, list[Entry]] = defaultdict(list)
    for entry in store.list(_ARTIFACTS):
        steps = entry.path.split("/")
        if len(steps) > 3:
            found[ArtifactKey(steps[1], steps[2])].append(entry)
    return dict(found)


def _of_sealed(artifact: Artifact, entries: Sequence[Entry]) -> Iterator[Fault]:
    key, manifest = artifact.key, artifact.manifest
    inputs = {name: str(value) for name, value in manifest.inputs.items()}
    stated = ArtifactKey.of(manifest.kind, manifest.version, manifest.science, inputs)  # pyright: ignore[reportArgumentType]
    if stated != key:
        what = (
            f"its version, configuration and inputs have fingerprint {stated.fingerprint[:SHORT]}"
        )
        yield Fault("damaged", key.manifest_path, what, key)
    present = {entry.path for entry in entries}
    lost = [r for r in manifest.receipts if f"{key.prefix}/{r.name}" not in present]
    for receipt in lost:
        what = "its manifest names it, and it is not there"
        yield Fault("missing", f"{key.prefix}/{receipt.name}", what, key)
    kept = [r for r in manifest.receipts if r not in lost]
    for receipt, what in _differences(artifact.store, key, kept):
        yield Fault("damaged", f"{key.prefix}/{receipt.name}", what, key)
    known = {f"{key.prefix}/{r.name}" for r in manifest.receipts}
    known |= {f"{key.prefix}/receipts/{r.name}.json" for r in manifest.receipts}
    for path in sorted(present - known - {key.manifest_path}):
        yield Fault("orphaned", path, "the artefact is sealed, and its manifest does not name it")


def _of_unsealed(store: Store, key: ArtifactKey, entries: Sequence[Entry]) -> Iterator[Fault]:
    done = ArtifactWriter(store, key).done()
    for receipt, what in _differences(store, key, list(done.values())):
        yield Fault("damaged", f"{key.prefix}/{receipt.name}", what)
    size = sum(entry.size for entry in entries)
    what = f"{len(done)} objects are done, {size / 1e6:.1f} MB; there is no manifest yet"
    yield Fault("unsealed", key.prefix, what)


def _differences(
    store: Store, key: ArtifactKey, receipts: Sequence[Receipt]
) -> list[tuple[Receipt, str]]:
    """The objects that differ from their receipts, and how."""

    def look(receipt: Receipt) -> str:
        try:
            return difference(store.read(f"{key.prefix}/{receipt.name}"), receipt)
        except UnreadableError as e:
            return e.message

    with ThreadPoolExecutor(_THREADS) as pool:
        found = zip(receipts, pool.map(look, receipts), strict=True)
        return [(receipt, what) for receipt, what in found if what]


def _lost_inputs(graph: ArtifactGraph, unreadable: dict[ArtifactKey, str]) -> Iterator[Fault]:
    known = {key.fingerprint for key in unreadable}
    for identity, keys in sorted(graph.without_input().items()):
        name = graph.input_name(identity, keys[0])
        if identity in known:
            place = next(key.prefix for key in unreadable if key.fingerprint == identity)
            what = "its manifest cannot be read"
        else:
            place, what = (
                f"{name} {identity[:SHORT]}",
                "no artefact below this root has this identity",
            )
        yield Fault("missing", place, what, needed_by=tuple(keys))


def _trainings(store: Store, graph: ArtifactGraph) -> dict[str, bool]:
    """The names of all trainings with files among the checkpoints, and whether their artefact is sealed."""
    sealed = {key.fingerprint for key in graph.sealed}
    names = [name for name in store.folders(CHECKPOINTS) if f"{CHECKPOINTS}/{name}" != RAY_RUNS]
    return {name: name in sealed for name in names}


def _of_training(store: Store, name: str, *, is_sealed: bool) -> tuple[int, list[Fault]]:
    """The number of sealed checkpoints of a training, and what is wrong with them."""
    prefix = f"{CHECKPOINTS}/{name}"
    entries = store.list(prefix)
    if is_sealed:
        what = "the artefact of this training is sealed, and its checkpoints were not deleted"
        return 0, [Fault("orphaned", prefix, what)] if entries else []
    faults: list[Fault] = []
    records = Checkpoints(store, name).sealed()
    for record in records:
        what = _damage_of(store, prefix, record)
        # A training that works deletes its older checkpoints meanwhile.
        if what and store.exists(f"{prefix}/{record.folder}/_record.json"):
            faults.append(Fault("damaged", f"{prefix}/{record.folder}", what))
    folders = {e.path.removeprefix(f"{prefix}/").partition("/") for e in entries}
    known = {record.folder for record in records}
    for folder in sorted({head for head, slash, _ in folders if slash} - known):
        has_record = store.exists(f"{prefix}/{folder}/_record.json")
        what = "its record cannot be read" if has_record else "it has no record yet"
        faults.append(Fault("damaged" if has_record else "unsealed", f"{prefix}/{folder}", what))
    return len(records), faults


def _damage_of(store: Store, prefix: str, record: CheckpointRecord) -> str:
    for file in record.files:
        try:
            data = store.read(f"{prefix}/{record.folder}/files/{file.path}")
        except ArtifactError as e:
            return e.message
        found = hashlib.sha256(data).hexdigest()
        if found != file.sha256:
            return (
                f"{file.path}: its {len(data)} bytes have sha256 {found[:SHORT]}, its record states "
                f"{file.bytes} bytes with {file.sha256[:SHORT]}"
            )
    return ""


def _probes(store: Store) -> Iterator[Fault]:
    for folder in store.folders():
        if folder.startswith("probe-"):
            yield Fault("orphaned", folder, "a check whether the root can be written was killed")
