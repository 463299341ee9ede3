"""Stage ``backbone``: the stock model, copied into the store once.

Workers then need the store alone, and later changes of a hub id or a folder cannot change a run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from gmp_atl_dist.config import RANDOM_SOURCE, Json, ModelConfig, digest, hashed
from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.models.sizes import SIZE_VERSIONS
from gmp_atl_dist.stages.base import Context, Seal, Stage
from gmp_atl_dist.stages.lineage import lineage_in_store
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.lineage import LINEAGE_KEY, LINEAGE_NAME, Lineage
from gmp_atl_dist.store.writer import ArtifactWriter


@dataclass(frozen=True)
class Backbone(Stage):
    """A copy of the model that ``model.source`` names, checked to be complete and of a supported type."""

    config: ModelConfig

    kind: ClassVar[str] = "backbone"
    identity_is_fingerprint: ClassVar[bool] = False

    def science(self) -> dict[str, Json]:
        return self.settings() | {"listing": _listing(self.config.source)}

    def settings(self) -> dict[str, Json]:
        settings: dict[str, Json] = {"model": hashed(self.config)}
        version = SIZE_VERSIONS.get(self.config.source.removeprefix(RANDOM_SOURCE))
        return settings if version is None else settings | {"size_version": version}

    def inputs(self) -> Mapping[str, Artifact]:
        return {}

    def run(self, context: Context, out: ArtifactWriter) -> Seal:
        from gmp_atl_dist.models.source import load_source, model_to_files

        source = self.config.source
        context.reporter.line(f"{self.label}: {source}")
        model = load_source(self.config, _read_files)
        # transformers keeps the keys of config.json that it does not know.
        told = vars(model.config).pop(LINEAGE_KEY, None)
        lineage = lineage_in_store(source) if told is None else Lineage.read(told, source)
        files = model_to_files(model)
        if lineage is not None:
            # Part of the identity, because the protocol of a report depends on it.
            files[LINEAGE_NAME] = lineage.to_json()
            context.reporter.line(f"{self.label}: {lineage.describe() or lineage.start}")
        for name, data in sorted(files.items()):
            out.put_file(name, data)
        hashes: dict[str, Json] = {n: hashlib.sha256(d).hexdigest() for n, d in files.items()}
        depth = str(model.num_layers)
        return Seal(digest(hashes), notes={"source": source, "num_layers": depth})


def check_layers(backbone: Artifact, layers: tuple[int, ...], key: str = "extract.layers") -> None:
    """Check that the model has every layer that the configuration asks for at ``key``.

    Raises:
        ModelError: it lacks layers; names all of them.
    """
    depth = int(backbone.manifest.notes["num_layers"])
    lacking = [layer for layer in layers if layer > depth]
    if lacking:
        also = " and cluster.scales" if key == "extract.layers" else ""
        raise ModelError(
            f"{key}: {lacking} of {list(layers)} are not in {backbone.manifest.notes['source']}, "
            f"which has layers 1 to {depth}; choose from those in {key}{also}"
        )


def _is_uri(source: str) -> bool:
    return "://" in source


def _listing(source: str) -> Json:
    """Changes when the files of a folder or URI change. Hub ids and random sizes have none: their name
    and revision identify them."""
    if source.startswith(RANDOM_SOURCE) or not (_is_uri(source) or Path(source).is_dir()):
        return None
    entries = Store.open(source).list()
    if not entries:
        raise ModelError(f"model.source: {source} holds no file; give a folder of save_pretrained")
    return [[e.path, e.size, e.mtime_ns] for e in entries]


def _read_files(uri: str) -> dict[str, bytes]:
    store = Store.open(uri)
    return {e.path: store.read(e.path) for e in store.list() if "/" not in e.path}
