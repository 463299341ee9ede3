"""Errors of storage libraries as errors of ours, which name the object and what to check."""

from __future__ import annotations

import pyarrow as pa

from gmp_atl_dist.errors import ArtifactError


class UnreadableError(ArtifactError):
    """One object does not exist or may not be read, while the store itself answers."""


class Explained:
    """Turns errors of the storage libraries into one that names the object and what to check."""

    def __init__(self, action: str, remedy: str) -> None:
        self._action, self._remedy = action, remedy

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, _: object
    ) -> None:
        if e is None or isinstance(e, ArtifactError):
            return
        from botocore.exceptions import BotoCoreError, ClientError

        if isinstance(e, FileNotFoundError):
            raise UnreadableError(f"{self._action}: it is not there") from e
        if isinstance(e, (OSError, pa.ArrowException, BotoCoreError, ClientError)):
            # Object stores do not tell whether one object or all of them may not be read; a disk does.
            kind_of = UnreadableError if isinstance(e, PermissionError) else ArtifactError
            raise kind_of(f"{self._action}: {type(e).__name__}: {e}; {self._remedy}") from e
