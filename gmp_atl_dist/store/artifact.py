"""Artefacts: immutable parts, a receipt after each, and the manifest last.

``artifacts/{kind}/{fingerprint}/parts/NAME.parquet`` and ``files/NAME`` are each serialised completely and
put once. ``receipts/...json`` follows each of them, and ``_manifest.json`` comes last. **An artefact exists
if and only if its manifest exists**, and a part exists if and only if its receipt exists. So one listing
tells what is done. The reason: an interrupted Parquet writer leaves a *valid* file with some of the rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from gmp_atl_dist.config import digest
from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.store.checked import (
    FETCHED_WHOLE_BYTES,
    check_bytes,
    checked_parts,
    damaged,
    difference,
)
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey, Manifest, Receipt, part_path

_READ_THREADS = 16
_STORY = "files/training.json"
"""It tells where a training was resumed, so it may differ where the weights do not."""
MADE_FROM_NOTE = "made_from"
"""The note of a manifest that holds :attr:`Artifact.made_from` as JSON."""


@dataclass(frozen=True)
class Artifact:
    """A sealed artefact."""

    store: Store
    key: ArtifactKey
    manifest: Manifest

    @property
    def kind(self) -> str:
        return self.key.kind

    @property
    def identity(self) -> str:
        return self.manifest.identity

    @cached_property
    def receipts(self) -> dict[str, Receipt]:
        return {r.name: r for r in self.manifest.receipts}

    @cached_property
    def content(self) -> str:
        """Digest of the bytes of its objects, without the story of a training (``training.json``)."""
        return digest({r.name: r.sha256 for r in self.manifest.receipts if r.name != _STORY})

    @property
    def made_from(self) -> dict[str, str]:
        """The content of each input when it was made, by the input's name; empty of earlier releases."""
        note = json.loads(self.manifest.notes.get(MADE_FROM_NOTE, "{}"))
        return {str(name): str(content) for name, content in note.items()}

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the parts, in order."""
        return tuple(
            r.name.removeprefix("parts/").removesuffix(".parquet")
            for r in self.manifest.receipts
            if r.name.startswith("parts/")
        )

    def read_part(
        self, name: str, schema: pa.Schema, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """The table of a part, or some columns of it. The part must have this schema."""
        with self.open_part(name, schema, whole=columns is None) as part:
            return part.read(columns=None if columns is None else list(columns))

    @contextmanager
    def open_part(
        self,
        name: str,
        schema: pa.Schema,
        *,
        whole: bool = False,
        metadata: pq.FileMetaData | None = None,
        rows_are_checked: bool = False,
    ) -> Iterator[pq.ParquetFile]:
        """A part, to read row groups of it; ``whole`` if all of them will be read.

        It is compared with its receipt when this process opens it first. In object storage, a part that is
        large and not read whole is compared in size alone.

        Args:
            name: of the part.
            schema: the part must have it.
            whole: all row groups will be read.
            metadata: that of an earlier opening, so that it is not read again.
            rows_are_checked: the caller compares the rows that it reads with digests in them. In object
                storage no more than those rows is then fetched.

        Raises:
            ArtifactError: there is no such part, it is damaged, it has other columns, or a read fails, now or
                later.
        """
        path = f"{self.key.prefix}/{part_path(name)}"
        if part_path(name) not in self.receipts:
            raise ArtifactError(f"{self.key.prefix} has no part {name!r}; it has {self.part_names}")
        receipt = self.receipts[part_path(name)]
        is_known = checked_parts.knows(f"{self.store.uri}/{path}", receipt)
        if self.store.is_remote and not is_known and not rows_are_checked:
            whole = whole or receipt.bytes <= FETCHED_WHOLE_BYTES
        try:
            with (
                self._open_checked(path, receipt, whole=whole, is_known=is_known) as source,
                # Without pre_buffer, S3 gets one request per column of each row group.
                pq.ParquetFile(source, metadata=metadata, pre_buffer=True) as part,
            ):
                self._check_schema(path, part.schema_arrow, schema)
                yield part
        except (OSError, pa.ArrowException) as e:
            raise ArtifactError(
                f"{self.store.uri}/{path} cannot be read as Parquet: {e}; if the store is up, run gmp-atl "
                f"repair --root {self.store.uri}"
            ) from e

    @contextmanager
    def _open_checked(
        self, path: str, receipt: Receipt, *, whole: bool, is_known: bool
    ) -> Iterator[pa.NativeFile]:
        with self.store.open_input(path, whole=whole) as source:
            if is_known:
                pass
            elif whole or not self.store.is_remote:
                check_bytes(self.store.uri, self.key.prefix, source.read_buffer(), receipt)
                source.seek(0)
                checked_parts.note(f"{self.store.uri}/{path}", receipt)
            elif source.size() != receipt.bytes:
                sizes = f"it has {source.size()} bytes, its receipt states {receipt.bytes}"
                raise damaged(self.store.uri, self.key.prefix, receipt.name, sizes)
            yield source

    def _check_schema(self, path: str, schema: pa.Schema, expected: pa.Schema) -> None:
        if not schema.equals(expected):
            raise ArtifactError(
                f"{self.store.uri}/{path} has columns {schema.names}, expected {expected.names}; it "
                f"was written by another version: run again with a new root"
            )

    def read_file(self, name: str) -> bytes:
        """A file, compared with its receipt.

        Raises:
            ArtifactError: there is no such file, or it is damaged.
        """
        receipt = self.receipts.get(f"files/{name}")
        if receipt is None:
            files = [n.removeprefix("files/") for n in self.receipts if n.startswith("files/")]
            raise ArtifactError(f"{self.key.prefix} has no file {name!r}; it has {files}")
        data = self.store.read(f"{self.key.prefix}/{receipt.name}")
        check_bytes(self.store.uri, self.key.prefix, data, receipt)
        return data

    def read_files(self) -> dict[str, bytes]:
        """Every file, by its name."""
        names = [n.removeprefix("files/") for n in self.receipts if n.startswith("files/")]
        return {name: self.read_file(name) for name in names}

    def verify(self) -> list[str]:
        """Compare the digest of every object with its receipt; one line per problem."""

        def check(receipt: Receipt) -> str | None:
            path = f"{self.key.prefix}/{receipt.name}"
            try:
                data = self.store.read(path)
            except ArtifactError as e:
                return e.message
            found = difference(data, receipt)
            return f"{self.store.uri}/{path} is damaged: {found}" if found else None

        with ThreadPoolExecutor(_READ_THREADS) as pool:
            return [line for line in pool.map(check, self.manifest.receipts) if line]


def find_artifact(store: Store, key: ArtifactKey) -> Artifact | None:
    """The sealed artefact of ``key``; None if there is none.

    Raises:
        ArtifactError: its manifest is damaged, or belongs to another key.
    """
    if not store.exists(key.manifest_path):
        return None
    try:
        manifest = Manifest.model_validate_json(store.read(key.manifest_path))
    except ValidationError as e:
        raise ArtifactError(
            f"{store.uri}/{key.manifest_path} is not a manifest ({e.error_count()} errors); run "
            f"gmp-atl repair --root {store.uri}"
        ) from None
    if (manifest.kind, manifest.fingerprint) != (key.kind, key.fingerprint):
        raise ArtifactError(
            f"{store.uri}/{key.manifest_path} belongs to {manifest.kind}/{manifest.fingerprint}; "
            f"run gmp-atl repair --root {store.uri}"
        )
    return Artifact(store, key, manifest)


def artifact_of(store: Store, kind: str, prefix: str) -> Artifact:
    """The one sealed artefact of ``kind`` whose fingerprint begins with ``prefix``.

    Raises:
        ArtifactError: there is none, or several.
    """
    known = [key for key in list_artifacts(store) if key.kind == kind]
    keys = [key for key in known if key.fingerprint.startswith(prefix)]
    artifact = find_artifact(store, keys[0]) if len(keys) == 1 else None
    if artifact is None:
        names = ", ".join(key.fingerprint[:12] for key in keys or known) or "none"
        raise ArtifactError(
            f"{prefix!r} begins the fingerprint of {len(keys)} {kind} artefacts below {store.uri}; "
            f"give more characters of one of: {names}"
        )
    return artifact


def list_artifacts(store: Store) -> list[ArtifactKey]:
    """Every sealed artefact below the root, from one listing."""
    return [
        ArtifactKey(*e.path.split("/")[1:3])
        for e in store.list("artifacts")
        if e.path.endswith("/_manifest.json") and e.path.count("/") == 3
    ]
