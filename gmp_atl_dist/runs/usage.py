"""How much room a root takes: by kind of artefact and stage, and by everything else below it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from gmp_atl_dist.runs.names import read_runs
from gmp_atl_dist.store.filesystem import Store

_ARTIFACTS = "artifacts"


@dataclass
class RoomTaken:
    """Objects of one kind.

    ``folders`` are fingerprints of artefacts, or the folders below another prefix. ``unsealed`` of them have
    no manifest.
    """

    folders: set[str] = field(default_factory=set)
    sealed: set[str] = field(default_factory=set)
    num_objects: int = 0
    num_bytes: int = 0

    @property
    def unsealed(self) -> int:
        return len(self.folders - self.sealed)


def usage_of(store: Store) -> dict[tuple[str, str], RoomTaken]:
    """By (folder below the root, stage), the largest first; a stage is that of the run that made it.

    Of an artefact that no recorded run has reached, the stage is its kind. One listing of the root.
    """
    stages = {
        stage.fingerprint: stage.name for record in read_runs(store) for stage in record.stages
    }
    found: defaultdict[tuple[str, str], RoomTaken] = defaultdict(RoomTaken)
    for entry in store.list():
        top, *below = entry.path.split("/")
        if top == _ARTIFACTS and len(below) > 2:
            kind, name = below[0], below[1]
            usage = found[top, stages.get(name, kind)]
            if below[2:] == ["_manifest.json"]:
                usage.sealed.add(name)
        else:
            name = below[0] if below else ""
            usage = found[top, ""]
            usage.sealed.add(name)
        if name:
            usage.folders.add(name)
        usage.num_objects += 1
        usage.num_bytes += entry.size
    return dict(sorted(found.items(), key=lambda item: (-item[1].num_bytes, item[0])))
