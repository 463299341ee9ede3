"""What was made from what, by the manifests of a root."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.store.artifact import Artifact, find_artifact, list_artifacts
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey

_THREADS = 16
_IN_STORE = re.compile(r"/artifacts/([^/]+)/([0-9a-f]{64})(?:/|$)")


class ArtifactGraph:
    """The sealed artefacts of a root, and the edges between them.

    A manifest names inputs by identity. Two artefacts may have the same one, as when a corpus was moved. Two
    edges are no inputs: a ``cluster`` artefact names codebooks of others in its configuration, and a
    ``backbone`` may be a copy of a model in the same root.
    """

    def __init__(self, sealed: Mapping[ArtifactKey, Artifact]) -> None:
        self.sealed = dict(sealed)

    @classmethod
    def read(cls, store: Store) -> tuple[ArtifactGraph, dict[ArtifactKey, str]]:
        """The graph of a root, and the artefacts whose manifest cannot be used, with the reason."""

        def look(key: ArtifactKey) -> Artifact | str | None:
            try:
                return find_artifact(store, key)
            except ArtifactError as e:
                return e.message

        keys = list_artifacts(store)
        with ThreadPoolExecutor(_THREADS) as pool:
            found = dict(zip(keys, pool.map(look, keys), strict=True))
        sealed = {key: a for key, a in found.items() if isinstance(a, Artifact)}
        return cls(sealed), {key: why for key, why in found.items() if isinstance(why, str)}

    @cached_property
    def _by_identity(self) -> dict[str, list[ArtifactKey]]:
        found: defaultdict[str, list[ArtifactKey]] = defaultdict(list)
        for key, artifact in self.sealed.items():
            found[artifact.identity].append(key)
        return dict(found)

    @cached_property
    def _made_from(self) -> dict[ArtifactKey, set[ArtifactKey]]:
        return {key: set(self._sources(artifact)) for key, artifact in self.sealed.items()}

    @cached_property
    def _made_into(self) -> dict[ArtifactKey, set[ArtifactKey]]:
        found: defaultdict[ArtifactKey, set[ArtifactKey]] = defaultdict(set)
        for key, sources in self._made_from.items():
            for source in sources:
                found[source].add(key)
        return dict(found)

    def _sources(self, artifact: Artifact) -> Iterator[ArtifactKey]:
        for identity in artifact.manifest.inputs.values():
            yield from self._by_identity.get(identity, ())
        science = artifact.manifest.science
        if artifact.kind == "cluster":
            yield from self._codebooks(science)
        model = science.get("model") if artifact.kind == "backbone" else None
        found = _IN_STORE.search(str(model.get("source", ""))) if isinstance(model, dict) else None
        if found is not None and (key := ArtifactKey(*found.groups())) in self.sealed:
            yield key

    def _codebooks(self, science: Mapping[str, object]) -> Iterator[ArtifactKey]:
        config = science.get("cluster")
        scales = config.get("scales", []) if isinstance(config, dict) else []
        for scale in scales:
            name = scale.get("codebook") if isinstance(scale, dict) else None
            if name:
                yield from (
                    key
                    for key in self.sealed
                    if key.kind == "codebook" and key.fingerprint.startswith(str(name))
                )

    def with_sources(self, keys: Iterable[ArtifactKey]) -> set[ArtifactKey]:
        """``keys``, and everything that they were made from."""
        return _closure(keys, self._made_from)

    def dependants(self, keys: Iterable[ArtifactKey]) -> set[ArtifactKey]:
        """Everything that was made from ``keys``, directly or not, without ``keys``."""
        given = set(keys)
        return _closure(given, self._made_into) - given

    def without_input(self) -> dict[str, list[ArtifactKey]]:
        """The identities of inputs that no artefact has, with the artefacts that name them."""
        found: defaultdict[str, list[ArtifactKey]] = defaultdict(list)
        for key, artifact in self.sealed.items():
            for identity in artifact.manifest.inputs.values():
                if identity not in self._by_identity:
                    found[identity].append(key)
        return dict(found)

    def earlier_inputs(self) -> dict[ArtifactKey, list[str]]:
        """Artefacts that were made from other bytes than an input has now, and the names of such inputs."""
        found: defaultdict[ArtifactKey, list[str]] = defaultdict(list)
        for key, artifact in self.sealed.items():
            for name, content in artifact.made_from.items():
                keys = self._by_identity.get(artifact.manifest.inputs.get(name, ""), ())
                if keys and all(self.sealed[k].content != content for k in keys):
                    found[key].append(name)
        return dict(found)

    def input_name(self, identity: str, key: ArtifactKey) -> str:
        """What the manifest of ``key`` calls an input."""
        inputs = self.sealed[key].manifest.inputs
        return next((name for name, value in inputs.items() if value == identity), "input")

    def consumers_first(self, keys: Iterable[ArtifactKey]) -> list[ArtifactKey]:
        """In an order in which, at each step, no artefact is left whose inputs are gone."""
        depth = {key: len(self.with_sources([key])) for key in keys}
        return sorted(depth, key=lambda key: (-depth[key], key.kind, key.fingerprint))


def _closure(
    keys: Iterable[ArtifactKey], edges: Mapping[ArtifactKey, set[ArtifactKey]]
) -> set[ArtifactKey]:
    found: set[ArtifactKey] = set()
    waiting = list(keys)
    while waiting:
        key = waiting.pop()
        if key not in found:
            found.add(key)
            waiting += edges.get(key, ())
    return found
