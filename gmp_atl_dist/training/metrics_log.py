"""Destinations of a training's metrics beside its artefact: event files in the store, and MLflow."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from gmp_atl_dist.config import TrainWorkersConfig
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.tags import NO_TAGS, Tags

_log = logging.getLogger(__name__)


class MetricsLog(Protocol):
    """Takes metrics by name. Only :meth:`close` waits for a network."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """``metrics`` as of update ``step``, counted from 1."""
        ...

    def flush(self) -> None:
        """Publish what was logged so far."""
        ...

    def close(self) -> None:
        """Flush, and wait for it. Nothing may be logged afterwards."""
        ...


class MetricsLogs:
    """Several logs as one; none on ranks that log nothing. An error of a log never stops a training."""

    def __init__(self, logs: Sequence[MetricsLog] = ()) -> None:
        self._logs = logs

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._each(lambda log: log.log(step, metrics))

    def flush(self) -> None:
        self._each(lambda log: log.flush())

    def close(self) -> None:
        self._each(lambda log: log.close())

    def _each(self, do: Callable[[MetricsLog], None]) -> None:
        for log in self._logs:
            try:
                do(log)
            except Exception as e:  # e.g. a full disk
                _log.warning("%s: %s, training continues", type(log).__name__, type(e).__name__)


def open_logs(
    store: Store,
    key: ArtifactKey,
    workers: TrainWorkersConfig,
    local: Path,
    *,
    rank: int,
    after_step: int,
    tags: Tags = NO_TAGS,
) -> MetricsLogs:
    """The logs of this rank. Only rank 0 has any. ``tags`` are the run, stage and fold.

    Raises:
        ConfigError: MLflow is configured and not installed.
    """
    if rank != 0:
        return MetricsLogs()
    from gmp_atl_dist.training.events import EventLog

    logs: list[MetricsLog] = [EventLog(store, key, local, after_step=after_step, tags=tags)]
    if workers.mlflow_uri is not None:
        from gmp_atl_dist.training.mlflow_log import MlflowLog

        logs.append(MlflowLog(workers.mlflow_uri, workers.mlflow_experiment, key, tags))
    return MetricsLogs(logs)
