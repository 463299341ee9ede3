"""The metrics of a training as TensorBoard event files in the store.

An event file is a TFRecord of ``Event`` messages (tensorflow/core/util/event.proto); tensorboardX
writes both. The file grows on this machine and is uploaded as a whole, since objects cannot be appended
to. Each attempt writes its own file. The file begins with a ``SessionLog.START`` at the first step of the
attempt. From that step on, TensorBoard drops what an earlier attempt wrote, so a curve has each step once.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import (  # made when it is imported, out of pyright's sight
    Event,  # pyright: ignore[reportAttributeAccessIssue]
    SessionLog,  # pyright: ignore[reportAttributeAccessIssue]
)
from tensorboardX.summary import scalar

from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.runs import check_run_name
from gmp_atl_dist.tags import NO_TAGS, Tags

_log = logging.getLogger(__name__)

FLUSH_EVERY_S = 30.0
_SHORT = 12


def event_prefix(key: ArtifactKey, tags: Tags = NO_TAGS) -> str:
    """The folder of the event files of the training that makes ``key``. They are not part of the artefact.

    TensorBoard shows folders as names: ``NAME/finetune-fold1-1a2b3c4d5e6f`` below ``logs/``. A run
    without a name that can be a folder has ``finetune/FINGERPRINT``.
    """
    try:
        run = check_run_name(tags.run)
    except ConfigError:
        return f"logs/{key.kind}/{key.fingerprint}"
    where = (tags.stage or key.kind, tags.fold, key.fingerprint[:_SHORT])
    return f"logs/{run}/{'-'.join(word for word in where if word)}"


class EventLog:
    """Event files below :func:`event_prefix`. If the store refuses them, a warning is logged."""

    def __init__(
        self,
        store: Store,
        key: ArtifactKey,
        local: Path,
        *,
        after_step: int,
        tags: Tags = NO_TAGS,
    ) -> None:
        """``local`` is a folder of this machine; steps up to ``after_step`` were logged before."""
        self._store = store
        folder = local / "events"
        folder.mkdir()
        # Names begin with the second, by which TensorBoard orders them; two may share one.
        self._writer = EventsWriter(str(folder / "events"), f".{uuid.uuid4().hex[:8]}")
        (self._path,) = folder.iterdir()
        self._target = f"{event_prefix(key, tags)}/{self._path.name}"
        start = SessionLog(status=SessionLog.START)
        self._writer.write_event(
            Event(wall_time=time.time(), step=after_step + 1, session_log=start)
        )
        self._uploads = ThreadPoolExecutor(1, thread_name_prefix="events")
        self._uploading: Future[None] | None = None
        self._flushed_s = time.monotonic()
        self._refused = False

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        now_s = time.time()
        for name, value in metrics.items():
            self._writer.write_event(Event(wall_time=now_s, step=step, summary=scalar(name, value)))
        if time.monotonic() - self._flushed_s >= FLUSH_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Upload what was logged so far, in the background, unless an upload is still under way.

        Each upload is of the whole file, so the next one has what is left out now.
        """
        self._flushed_s = time.monotonic()
        self._writer.flush()
        if self._uploading is None or self._uploading.done():
            self._uploading = self._uploads.submit(self._upload)

    def close(self) -> None:
        """Upload the rest, and wait for it: for one put more than the one that is under way."""
        self._writer.flush()
        self._uploads.submit(self._upload)
        self._uploads.shutdown(wait=True)
        self._writer.close()

    def _upload(self) -> None:
        try:
            self._store.put(self._target, self._path.read_bytes())
        except Exception as e:  # a training must not fail because of its curves
            if not self._refused:
                _log.warning("events cannot be stored, training continues without them: %s", e)
            self._refused = True
        else:
            self._refused = False
