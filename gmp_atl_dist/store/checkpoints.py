"""Checkpoints of a training in the store: a folder each, and a record that is written last.

Every rank puts ``checkpoints/{name}/{step}-{attempt}/files/...``; one rank puts ``_record.json`` when all
files are there. **A checkpoint exists if and only if its record exists**, and it is used only if every file
has the size and the digest in the record. Each attempt has its own folders, so that the files of a killed
attempt are never mixed with those of the next one.
"""

from __future__ import annotations

import hashlib
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from gmp_atl_dist.errors import ArtifactError, CheckpointError
from gmp_atl_dist.store.filesystem import Store

ROOT = "checkpoints"
"""Everything below this prefix of a root is written and named in this module."""
RAY_RUNS = f"{ROOT}/_ray"
"""Files of Ray Train about its runs. They hold no checkpoints."""
_RECORD = "_record.json"
_STOP = "_stop"
_FAILURE = "_failure"
_ALIVE = "_alive"
_THREADS = 8


class CheckpointFile(BaseModel):
    """A file of a checkpoint, by its path below ``files/``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    bytes: int
    sha256: str


class CheckpointRecord(BaseModel):
    """Proof that a checkpoint is complete. ``world_size`` ranks had taken ``step`` updates."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str
    step: int
    world_size: int
    zero_stage: int
    files: tuple[CheckpointFile, ...]


class Checkpoints:
    """The checkpoints of the training ``name``, which is its artefact's fingerprint."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._prefix = f"{ROOT}/{name}"
        self._passed_over: set[str] = set()

    @property
    def where(self) -> str:
        return f"{self._store.uri}/{self._prefix}"

    def request_stop(self) -> None:
        """Ask the gang to save a checkpoint and stop."""
        self._store.put(f"{self._prefix}/{_STOP}", b"")

    def withdraw_stop(self) -> None:
        """Remove an earlier request."""
        self._store.delete(f"{self._prefix}/{_STOP}")

    def stop_requested(self) -> bool:
        """Whether the gang shall save a checkpoint and stop."""
        return self._store.exists(f"{self._prefix}/{_STOP}")

    def note_failure(self, message: str) -> None:
        """Note that the training ended for a reason that would be there again, so that no gang tries it."""
        self._store.put(f"{self._prefix}/{_FAILURE}", message.encode())

    def failure(self) -> str | None:
        """What was noted; None if nothing was."""
        path = f"{self._prefix}/{_FAILURE}"
        return self._store.read(path).decode() if self._store.exists(path) else None

    def withdraw_failure(self) -> None:
        """Remove an earlier note: the configuration or the machine may be another one now."""
        self._store.delete(f"{self._prefix}/{_FAILURE}")

    def note_alive(self) -> None:
        """Leave a sign of life that differs from the one before."""
        self._store.put(f"{self._prefix}/{_ALIVE}", uuid.uuid4().hex.encode())

    def alive(self) -> str | None:
        """The newest sign of life; None where there is none, or the store does not answer."""
        try:
            return self._store.read(f"{self._prefix}/{_ALIVE}").decode()
        except ArtifactError:
            return None

    def withdraw_alive(self) -> None:
        """Remove the sign of an earlier attempt."""
        self._store.delete(f"{self._prefix}/{_ALIVE}")

    def forget(self) -> None:
        """Remove everything of a finished training. Its artefact holds the result."""
        self._store.delete(self._prefix)
        self._store.delete(f"{RAY_RUNS}/{self._name}")

    def upload(self, folder: str, local: Path, *, rank: int) -> None:
        """Put this rank's files, and then the list of them.

        Raises:
            ArtifactError: the store cannot be written.
        """
        paths = sorted(p for p in local.rglob("*") if p.is_file())
        files: list[CheckpointFile] = []
        for path in paths:
            data = path.read_bytes()
            name = path.relative_to(local).as_posix()
            self._store.put(f"{self._prefix}/{folder}/files/{name}", data)
            digest = hashlib.sha256(data).hexdigest()
            files.append(CheckpointFile(path=name, bytes=len(data), sha256=digest))
        listed = CheckpointRecord(
            folder=folder, step=0, world_size=0, zero_stage=0, files=tuple(files)
        )
        self._store.put(_rank_path(self._prefix, folder, rank), listed.model_dump_json().encode())

    def pass_over(self, folder: str) -> None:
        """Note that a sealed checkpoint could not be used. The next :meth:`seal` deletes it."""
        self._passed_over.add(folder)

    def seal(
        self, folder: str, *, step: int, world_size: int, zero_stage: int, keep: int
    ) -> list[str]:
        """Write the record after every rank has uploaded.

        Then keep this checkpoint and the newest ones before it, ``keep`` in all. Older ones are deleted, and
        so is what was passed over. Newer ones of another attempt stay, sealed or not.

        Returns:
            the folders that were passed over and are deleted now.
        """
        files: list[CheckpointFile] = []
        for rank in range(world_size):
            data = self._store.read(_rank_path(self._prefix, folder, rank))
            files += CheckpointRecord.model_validate_json(data).files
        record = CheckpointRecord(
            folder=folder,
            step=step,
            world_size=world_size,
            zero_stage=zero_stage,
            files=tuple(files),
        )
        path = f"{self._prefix}/{folder}/{_RECORD}"
        self._store.put(path, record.model_dump_json().encode())
        return self._retain(record, keep)

    def sealed(self) -> list[CheckpointRecord]:
        """The checkpoints with a readable record, the newest first."""
        records: list[CheckpointRecord] = []
        for entry in self._store.list(self._prefix):
            folder, _, name = entry.path.removeprefix(f"{self._prefix}/").partition("/")
            if name != _RECORD:
                continue
            try:
                record = CheckpointRecord.model_validate_json(self._store.read(entry.path))
            except (ValidationError, ArtifactError):
                continue
            if record.folder == folder:
                records.append(record)
        return sorted(records, key=lambda r: (r.step, r.folder), reverse=True)

    def fetch(self, record: CheckpointRecord, local: Path) -> None:
        """Copy the files of a checkpoint to ``local``; each is checked against the record.

        Raises:
            CheckpointError: a file is missing or damaged; it is named.
        """
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(lambda file: self._fetch(record, file, local), record.files))

    def _fetch(self, record: CheckpointRecord, file: CheckpointFile, local: Path) -> None:
        path = f"{self._prefix}/{record.folder}/files/{file.path}"
        target = (local / file.path).resolve()
        if not target.is_relative_to(local.resolve()):
            raise CheckpointError(f"{self.where}/{record.folder}: {file.path!r} leaves its folder")
        try:
            data = self._store.read(path)
        except ArtifactError as e:
            raise CheckpointError(f"{self._store.uri}/{path} cannot be read ({e})") from None
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 != file.sha256:
            raise CheckpointError(
                f"{self._store.uri}/{path} is damaged: {len(data)} bytes with sha256 {sha256[:12]}, "
                f"its record states {file.bytes} and {file.sha256[:12]}"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    def _retain(self, newest: CheckpointRecord, keep: int) -> list[str]:
        # A checkpoint that was passed over may have more updates than the one just sealed. By the number of
        # updates alone it would stay, and each new one would be deleted until it passes that number.
        earlier = [
            record.folder
            for record in self.sealed()
            if record.step <= newest.step
            and record.folder != newest.folder
            and record.folder not in self._passed_over
        ]
        kept = {newest.folder, *earlier[: keep - 1]}
        folders = {
            entry.path.removeprefix(f"{self._prefix}/").partition("/")[0]
            for entry in self._store.list(self._prefix)
        }
        for folder in sorted(folders - kept):
            number, _, attempt = folder.partition("-")
            if not attempt or not number.isdigit():
                continue
            # A folder without a record that is older than a sealed one is of a killed attempt. A newer one
            # may be of a rank that uploads now.
            if int(number) <= newest.step or folder in self._passed_over:
                # The record first: without it, the other files are not used.
                self._store.delete(f"{self._prefix}/{folder}/{_RECORD}")
                self._store.delete(f"{self._prefix}/{folder}")
        dropped = sorted(folders & self._passed_over - kept)
        self._passed_over.clear()
        return dropped


def _rank_path(prefix: str, folder: str, rank: int) -> str:
    return f"{prefix}/{folder}/rank-{rank}.json"
