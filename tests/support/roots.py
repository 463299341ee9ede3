"""Small roots made by hand: artefacts that name each other as inputs, runs, checkpoints."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pytest

from gmp_atl_dist.config import Json, canonical_json
from gmp_atl_dist.records import CURVE_SCHEMA
from gmp_atl_dist.store.artifact import MADE_FROM_NOTE, Artifact
from gmp_atl_dist.store.checkpoints import Checkpoints
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.layout import claim_layout
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.runs import Attempt, Machine, RunRecord, StageRun, write_run
from gmp_atl_dist.store.writer import ArtifactWriter

OTHER_HOST = "another-host"


@pytest.fixture
def store(store_uri: str) -> Store:
    """A new root, in a folder and on S3."""
    return Store.open(store_uri)


@pytest.fixture
def folder(tmp_path: Path) -> Store:
    """A new root in a folder."""
    return Store.open(str(tmp_path / "root"))


def make(
    store: Store,
    kind: str,
    inputs: Mapping[str, Artifact] | None = None,
    *,
    seal: bool = True,
    science: Json = None,
    weights: str = "weights",
) -> Artifact:
    """An artefact of two small objects that was made from ``inputs``; without ``seal`` a begun one."""
    claim_layout(store)
    named: dict[str, Json] = {"what": science}
    identities = {name: artifact.identity for name, artifact in (inputs or {}).items()}
    key = ArtifactKey.of(kind, 1, named, identities)
    writer = ArtifactWriter(store, key)
    rows = [{"step": 1, "name": kind, "value": 0.5}]
    writer.put_part("curves", pa.Table.from_pylist(rows, schema=CURVE_SCHEMA))
    writer.put_file("model.safetensors", f"{weights} of {kind} {science}".encode() * 20)
    if not seal:
        return writer.written()
    contents = {name: artifact.content for name, artifact in (inputs or {}).items()}
    notes = {MADE_FROM_NOTE: canonical_json({**contents})} if contents else {}
    return writer.seal(version=1, science=named, inputs=identities, notes=notes)


def chain(store: Store, science: Json = None) -> dict[str, Artifact]:
    """corpus -> warmup -> extract -> label -> retrain, and a report of all; a backbone beside it."""
    made = {"ingest": make(store, "ingest"), "backbone": make(store, "backbone")}
    corpus, backbone = made["ingest"], made["backbone"]
    of = {"corpus": corpus, "backbone": backbone}
    made["warmup"] = make(store, "warmup", of, science=science)
    made["extract"] = make(store, "extract", {"corpus": corpus, "model": made["warmup"]})
    made["label"] = make(store, "label", {"corpus": corpus, "features": made["extract"]})
    made["retrain"] = make(store, "retrain", {"backbone": backbone, "labels": made["label"]})
    made["report"] = make(store, "report", made)
    return made


def flip(store: Store, path: str) -> None:
    """One bit of an object in its middle, as if its disk had lost it."""
    data = bytearray(store.read(path))
    data[len(data) // 2] ^= 1
    store.put(path, bytes(data))


def note_run(
    store: Store, name: str, keys: Mapping[str, ArtifactKey], *, lives: bool = False, fold: str = ""
) -> RunRecord:
    """The record of a run that has reached these stages, in order; of a driver on another machine."""
    now_s = time.time()
    attempt = Attempt(
        started_s=now_s - 3600,
        seen_s=now_s if lives else now_s - 3000,
        ended_s=None if lives else now_s - 3000,
        state="running" if lives else "stopped",
        pid=1,
        machine=Machine(host=OTHER_HOST),
    )
    stages = tuple(
        StageRun(
            label=label,
            name=label,
            fold="" if key.kind in ("ingest", "backbone") else fold,
            kind=key.kind,
            fingerprint=key.fingerprint,
            state="done",
            attempt=0,
            started_s=now_s - 3600,
        )
        for label, key in keys.items()
    )
    record = RunRecord(
        name=name,
        config_name=name,
        fingerprint="0" * 64,
        corpus_name="corpus",
        # Of another release: what the run would do next cannot be told, and what it has reached can.
        configuration={"of": "another release"},
        attempts=(attempt,),
        stages=stages,
    )
    write_run(store, record)
    return record


def checkpoint(store: Store, name: str, step: int, local: Path) -> str:
    """A sealed checkpoint of one file; the path of that file."""
    checkpoints = Checkpoints(store, name)
    folder = f"{step:08d}-a"
    local.mkdir(parents=True, exist_ok=True)
    (local / "shard.pt").write_bytes(f"state at {step}".encode() * 10)
    checkpoints.upload(folder, local, rank=0)
    checkpoints.seal(folder, step=step, world_size=1, zero_stage=1, keep=2)
    return f"checkpoints/{name}/{folder}/files/shard.pt"
