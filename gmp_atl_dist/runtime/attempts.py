"""Which tasks were begun and never done, so that what always kills its worker can be named.

Ray says that a worker died, not what it did. Each begin is noted in Ray's own key-value store, where
it outlives the worker, and is forgotten when the task is done.
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Attempts:
    """The notes of one run over tasks, shared by its driver and its workers."""

    run: str = field(default_factory=lambda: uuid.uuid4().hex)

    def begin(self, task: str) -> None:
        from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

        key = self._key(task)
        _internal_kv_put(key, str(int(_internal_kv_get(key) or 0) + 1))

    def done(self, task: str) -> None:
        from ray.experimental.internal_kv import _internal_kv_del

        _internal_kv_del(self._key(task))

    def most_attempted(self) -> tuple[int, list[str]]:
        """How often the tasks were begun that were begun most often, and their names."""
        from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_list

        prefix = self._key("")
        times: dict[str, int] = {}
        # Where Ray itself is gone, so are the notes.
        with suppress(Exception):
            for key in _internal_kv_list(prefix):
                times[key.decode().removeprefix(prefix)] = int(_internal_kv_get(key) or 0)
        most = max(times.values(), default=0)
        return most, sorted(name for name, count in times.items() if count == most)

    def forget(self) -> None:
        from ray.experimental.internal_kv import _internal_kv_del

        with suppress(Exception):
            _internal_kv_del(self._key(""), del_by_prefix=True)

    def _key(self, task: str) -> str:
        return f"gmp_atl/begun/{self.run}/{task}"
