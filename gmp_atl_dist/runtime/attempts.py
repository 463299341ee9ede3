"""How often each unfinished task was started, so that an error can name a task that kills its worker.

Ray reports that a worker died, not which task it ran. Each start is counted in Ray's own key-value store,
which outlives the worker. The count is deleted when the task is finished.
"""

from __future__ import annotations

import logging
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field

_log = logging.getLogger(__name__)
_PATIENCE_S = 20.0
_AGAIN_S = 1.0


@dataclass(frozen=True)
class TaskAttempts:
    """The counts of one call of ``map_tasks`` or ``stream_tasks``, shared by its driver and workers."""

    run: str = field(default_factory=lambda: uuid.uuid4().hex)

    def start(self, task: str) -> None:
        """Count one more start of ``task``."""
        from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

        key = self._key(task)
        _internal_kv_put(key, str(int(_internal_kv_get(key) or 0) + 1))

    def finish(self, task: str) -> None:
        """Delete the count of ``task``."""
        from ray.experimental.internal_kv import _internal_kv_del

        _internal_kv_del(self._key(task))

    def most_started(self) -> tuple[int, list[str]] | None:
        """The highest count of an unfinished task, and the names of all tasks that have it.

        None: Ray's head did not answer. If Ray itself is gone, so are the counts.
        """
        from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_list

        prefix = self._key("")
        until_s = time.monotonic() + _PATIENCE_S
        # On a busy head a request may fail, and the next one not.
        while True:
            try:
                counts = {
                    key.decode().removeprefix(prefix): int(_internal_kv_get(key) or 0)
                    for key in _internal_kv_list(prefix)
                }
            except Exception as e:
                _log.debug("counts of started tasks: %s", e)
                if time.monotonic() > until_s:
                    return None
                time.sleep(_AGAIN_S)
            else:
                most = max(counts.values(), default=0)
                return most, sorted(name for name, count in counts.items() if count == most)

    def clear(self) -> None:
        """Delete all counts."""
        from ray.experimental.internal_kv import _internal_kv_del

        with suppress(Exception):
            _internal_kv_del(self._key(""), del_by_prefix=True)

    def _key(self, task: str) -> str:
        return f"gmp_atl/attempts/{self.run}/{task}"
