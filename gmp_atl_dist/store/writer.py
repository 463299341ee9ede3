"""Writes artefacts: each object as a whole, its receipt after it, and the manifest last."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq

from gmp_atl_dist.config import Json, canonical_json
from gmp_atl_dist.records import Problem
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import (
    ArtifactKey,
    Manifest,
    Receipt,
    parse_receipt,
    part_path,
    receipt_path,
)

_READ_THREADS = 16


class ArtifactWriter:
    """Writes one artefact. Any number of processes may write parts of the same artefact."""

    def __init__(self, store: Store, key: ArtifactKey) -> None:
        self.store = store
        self.key = key
        self._seen: dict[str, Receipt] = {}

    def remember(self, receipts: Iterable[Receipt]) -> None:
        """Keep receipts that workers returned, so that they are not read from the store."""
        self._seen.update((receipt_path(r.name), r) for r in receipts)

    def done(self) -> dict[str, Receipt]:
        """Receipts by object name (``parts/...`` or ``files/...``), from one listing.

        A receipt that is damaged, or whose object is missing or has another size, is left out: the work
        is done again.
        """
        prefix = self.key.prefix + "/"
        sizes = {e.path.removeprefix(prefix): e.size for e in self.store.list(self.key.prefix)}
        paths = [name for name in sizes if name.startswith("receipts/")]
        unread = [name for name in paths if name not in self._seen]
        with ThreadPoolExecutor(_READ_THREADS) as pool:
            raw = list(pool.map(lambda name: self.store.read(prefix + name), unread))
        self.remember(receipt for data in raw if (receipt := parse_receipt(data)))
        receipts = (self._seen[name] for name in paths if name in self._seen)
        return {r.name: r for r in receipts if sizes.get(r.name) == r.bytes}

    def stored_part(self, name: str) -> Receipt | None:
        """The receipt of part ``name``, of any run. None: the part is not stored, or it is not whole.

        It is looked up in the store at each call. A part is whole as :meth:`done` defines it.
        """
        path = f"{self.key.prefix}/{receipt_path(part_path(name))}"
        if not self.store.exists(path):
            return None
        receipt = parse_receipt(self.store.read(path))
        if receipt is None or self.store.size(f"{self.key.prefix}/{receipt.name}") != receipt.bytes:
            return None
        return receipt

    def put_part(
        self,
        name: str,
        table: pa.Table,
        *,
        frames: int = 0,
        audio_s: float = 0.0,
        problems: Sequence[Problem] = (),
        compression: str = "none",
        row_group_rows: int | None = None,
        first: str = "",
        last: str = "",
    ) -> Receipt:
        """Serialise ``table``, put it as part ``name``, and then put its receipt."""
        # A stream of Arrow, because one of Python copies everything once more.
        stream = pa.BufferOutputStream()
        pq.write_table(
            table,
            stream,
            row_group_size=row_group_rows,
            compression=compression,
            use_dictionary=False,
            write_statistics=False,
            store_schema=False,
        )
        data = memoryview(stream.getvalue())
        receipt = self._receipt(part_path(name), data, table.num_rows)
        receipt = receipt.model_copy(
            update={
                "frames": frames,
                "audio_s": audio_s,
                "first": first,
                "last": last,
                "problems": tuple(problems),
            }
        )
        return self._put(receipt, data)

    def put_file(self, name: str, data: bytes) -> Receipt:
        """Put ``data`` as file ``name``, and then its receipt."""
        return self._put(self._receipt(f"files/{name}", data, 0), data)

    def _receipt(self, name: str, data: bytes | memoryview, rows: int) -> Receipt:
        return Receipt(
            name=name, rows=rows, bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
        )

    def _put(self, receipt: Receipt, data: bytes | memoryview) -> Receipt:
        self.store.put(f"{self.key.prefix}/{receipt.name}", data)
        text = receipt.model_dump_json().encode()
        self.store.put(f"{self.key.prefix}/{receipt_path(receipt.name)}", text)
        return receipt

    def written(self) -> Artifact:
        """The artefact as far as it is written, to check it before the seal. It has no manifest yet."""
        receipts = self.done()
        manifest = Manifest(
            kind=self.key.kind,
            version=0,
            fingerprint=self.key.fingerprint,
            identity=self.key.fingerprint,
            science={},
            inputs={},
            receipts=tuple(receipts[name] for name in sorted(receipts)),
        )
        return Artifact(self.store, self.key, manifest)

    def seal(
        self,
        *,
        version: int,
        science: Mapping[str, Json],
        inputs: Mapping[str, str],
        identity: str | None = None,
        problems: Sequence[Problem] = (),
        notes: Mapping[str, str] | None = None,
    ) -> Artifact:
        """Write the manifest of all objects that have a receipt. From now on the artefact exists."""
        receipts = self.done()
        manifest = Manifest(
            kind=self.key.kind,
            version=version,
            fingerprint=self.key.fingerprint,
            identity=identity or self.key.fingerprint,
            science=dict(science),
            inputs=dict(inputs),
            receipts=tuple(receipts[name] for name in sorted(receipts)),
            problems=tuple(problems),
            notes=dict(notes or {}),
        )
        text = canonical_json(manifest.model_dump(mode="json")).encode()
        self.store.put(self.key.manifest_path, text)
        return Artifact(self.store, self.key, manifest)
