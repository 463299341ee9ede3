"""The model of the best epoch so far, kept in the store until the training ends."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from pydantic import TypeAdapter, ValidationError

from gmp_atl_dist.errors import CheckpointError
from gmp_atl_dist.store.checkpoints import CheckpointFile
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey

_RECORD = "_files.json"
_Files = TypeAdapter(list[CheckpointFile])


class BestEpoch:
    """Keeps what a model exports after an epoch, and gives it back only if it is unchanged.

    A checkpoint may be resumed days later, so the bytes are compared with their digests. Rank 0 uses it.
    """

    def __init__(self, store: Store, key: ArtifactKey) -> None:
        self._store = store
        self._prefix = f"{key.prefix}/candidates"

    def keep(self, epoch: int, files: Mapping[str, bytes]) -> None:
        """Store the files of ``epoch``; the record of their digests last."""
        stated: list[CheckpointFile] = []
        for name, data in files.items():
            self._store.put(f"{self._place(epoch)}/{name}", data)
            digest = hashlib.sha256(data).hexdigest()
            stated.append(CheckpointFile(path=name, bytes=len(data), sha256=digest))
        self._store.put(f"{self._place(epoch)}/{_RECORD}", _Files.dump_json(stated))

    def read(self, epoch: int) -> dict[str, bytes]:
        """The files of ``epoch`` by name.

        Raises:
            CheckpointError: a file is missing or is not what was kept.
        """
        place = self._place(epoch)
        present = {e.path.removeprefix(f"{place}/") for e in self._store.list(place)}
        if _RECORD not in present:
            raise self._lost(epoch, f"{_RECORD} is missing")
        try:
            stated = _Files.validate_json(self._store.read(f"{place}/{_RECORD}"))
        except ValidationError:
            raise self._lost(epoch, f"{_RECORD} is damaged") from None
        files: dict[str, bytes] = {}
        for file in stated:
            if file.path not in present:
                raise self._lost(epoch, f"{file.path} is missing")
            data = self._store.read(f"{place}/{file.path}")
            if hashlib.sha256(data).hexdigest() != file.sha256:
                raise self._lost(epoch, f"{file.path} is damaged")
            files[file.path] = data
        return files

    def _place(self, epoch: int) -> str:
        return f"{self._prefix}/{epoch:04d}"

    def _lost(self, epoch: int, what: str) -> CheckpointError:
        name = self._prefix.split("/")[-2]
        return CheckpointError(
            f"the model of the best epoch, {epoch}, cannot be used: {what} in "
            f"{self._store.uri}/{self._place(epoch)}; delete checkpoints/{name} of the root and run the same "
            f"command again: this stage is then trained from its start"
        )
