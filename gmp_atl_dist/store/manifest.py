"""What is stored about an artefact: a receipt of each object, the manifest of all, the key of its place."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gmp_atl_dist.config import Json, digest
from gmp_atl_dist.records import Problem


class Receipt(BaseModel):
    """Proof that an object was written completely. ``rows`` is 0 for files that are not tables.

    ``first`` and ``last`` are the first and last key of a part whose rows are sorted by key, so that a row
    is found without opening other parts. They are empty for other objects.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    rows: int = Field(ge=0)
    bytes: int = Field(ge=0)
    sha256: str
    frames: int = Field(default=0, ge=0)
    audio_s: float = Field(default=0.0, ge=0)
    first: str = ""
    last: str = ""
    problems: tuple[Problem, ...] = ()


class Manifest(BaseModel):
    """The objects and the inputs of an artefact. Dependent stages hash ``identity``.

    It is the fingerprint, except if the inputs lie outside the store (recordings, a model). Then the
    fingerprint tells whether to read them again, and ``identity`` is the digest of what was read.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    version: int
    fingerprint: str
    identity: str
    science: dict[str, object]
    inputs: dict[str, str]
    receipts: tuple[Receipt, ...]
    problems: tuple[Problem, ...] = ()
    notes: dict[str, str] = Field(default_factory=dict)


def receipts_json(receipts: Iterable[Receipt]) -> str:
    """The receipts as a task worker returns them."""
    return json.dumps([r.model_dump(mode="json") for r in receipts])


@dataclass(frozen=True)
class ArtifactKey:
    """The place of an artefact: its kind, and the digest of everything that determines it."""

    kind: str
    fingerprint: str

    @classmethod
    def of(
        cls, kind: str, version: int, science: Mapping[str, Json], inputs: Mapping[str, str]
    ) -> ArtifactKey:
        """sha256 over kind, version, the science slice and the identities of the inputs."""
        document: dict[str, Json] = {
            "kind": kind,
            "version": version,
            "science": dict(science),
            "inputs": dict(inputs),
        }
        return cls(kind, digest(document))

    @property
    def prefix(self) -> str:
        return f"artifacts/{self.kind}/{self.fingerprint}"

    @property
    def manifest_path(self) -> str:
        return f"{self.prefix}/_manifest.json"


def parse_receipt(data: bytes) -> Receipt | None:
    """A stored receipt; None if it is damaged."""
    try:
        return Receipt.model_validate_json(data)
    except ValidationError:
        return None


def receipt_path(name: str) -> str:
    """Where the receipt of an object is, below its artefact."""
    return f"receipts/{name}.json"


def part_path(name: str) -> str:
    """Where a part is, below its artefact."""
    return f"parts/{name}.parquet"
