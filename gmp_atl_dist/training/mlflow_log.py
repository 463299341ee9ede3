"""The metrics of a training on an MLflow tracking server, if one is configured.

Each training has one MLflow run. A resumed attempt finds it by its fingerprint and continues it. MLflow
reads its credentials itself: MLFLOW_TRACKING_TOKEN, or _USERNAME and _PASSWORD, from the environment. Log
lines name an error's type only, because its text may quote a request.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.tags import NO_TAGS, Tags

_log = logging.getLogger(__name__)

FLUSH_EVERY_S = 30.0
_CLOSE_S = 120.0
_LIMITS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3"}
"""Seconds without an answer, and retries. By default MLflow tries one request for a quarter of an hour."""
_FINGERPRINT_TAG = "gmp_atl_dist.fingerprint"
_MOST_METRICS = 1000  # of one request of MLflow's REST API, runs/log-batch


def check_mlflow() -> None:
    """Raises ConfigError if mlflow is not installed."""
    if find_spec("mlflow") is None:
        raise ConfigError(
            "runtime.train.mlflow_uri is set, and mlflow is not installed here; install "
            "gmp_atl_dist[mlflow] on the driver and the workers, or remove the key"
        )


class MlflowLog:
    """Metrics of one MLflow run. If the server does not answer, a warning is logged."""

    def __init__(
        self,
        uri: str,
        experiment: str,
        key: ArtifactKey,
        tags: Tags = NO_TAGS,
        *,
        close_s: float = _CLOSE_S,
    ) -> None:
        """Connects at the first :meth:`flush`. ``tags`` name the MLflow run.

        Raises:
            ConfigError: mlflow is not installed.
        """
        check_mlflow()
        for name, value in _LIMITS.items():
            os.environ.setdefault(name, value)
        self._uri = uri
        self._experiment = experiment
        self._key = key
        self._tags = tags
        self._run: tuple[Any, str] | None = None  # the client, as mlflow types it, and the run's id
        self._waiting: list[tuple[str, float, int, int]] = []
        self._requests = ThreadPoolExecutor(1, thread_name_prefix="mlflow")
        self._sending: Future[None] | None = None
        self._close_s = close_s
        self._flushed_s = time.monotonic()
        self._refused = False

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        now_ms = round(1000 * time.time())
        self._waiting += [(name, value, now_ms, step) for name, value in metrics.items()]
        if time.monotonic() - self._flushed_s >= FLUSH_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Send what was logged so far, in the background, unless the request before is still under way."""
        self._flushed_s = time.monotonic()
        if self._sending is not None and not self._sending.done():
            return
        metrics, self._waiting = self._waiting, []
        self._sending = self._requests.submit(self._guarded, metrics, end=False)

    def close(self) -> None:
        """Send the rest, and end the MLflow run; a resumed attempt opens it again.

        Waits for at most ``close_s``: a server that does not answer must not keep the workers.
        """
        metrics, self._waiting = self._waiting, []
        last = self._requests.submit(self._guarded, metrics, end=True)
        _, late = wait([last], self._close_s)
        if late:
            _log.warning(
                "MLflow has not taken the last metrics within %g s; training ends without them; check "
                "runtime.train.mlflow_uri",
                self._close_s,
            )
        self._requests.shutdown(wait=False, cancel_futures=True)

    def _guarded(self, metrics: list[tuple[str, float, int, int]], *, end: bool) -> None:
        try:
            client, run_id = self._run = self._run or self._connect()
            entities = import_module("mlflow.entities")
            for first in range(0, len(metrics), _MOST_METRICS):
                batch = [entities.Metric(*m) for m in metrics[first : first + _MOST_METRICS]]
                client.log_batch(run_id, metrics=batch)
            if end:
                client.set_terminated(run_id, status="FINISHED")
        except Exception as e:
            if not self._refused:
                _log.warning(
                    "MLflow does not take metrics (%s); training continues without them; check "
                    "runtime.train.mlflow_uri and MLFLOW_TRACKING_* of the workers",
                    type(e).__name__,
                )
            self._refused = True
        else:
            self._refused = False

    @property
    def _name(self) -> str:
        """``NAME finetune fold1``; of a run without a name ``finetune 1a2b3c4d5e6f``."""
        if not self._tags.run:
            return f"{self._key.kind} {self._key.fingerprint[:12]}"
        return f"{self._tags.run} {self._tags.label}"

    @property
    def _mlflow_tags(self) -> dict[str, str]:
        tags = {_FINGERPRINT_TAG: self._key.fingerprint}
        names = {
            "run": self._tags.run,
            "stage": self._tags.stage or self._key.kind,
            "fold": self._tags.fold,
        }
        return tags | {f"gmp_atl_dist.{name}": value for name, value in names.items() if value}

    def _connect(self) -> tuple[Any, str]:
        """The client, and the id of this training's run, which is created if it does not exist."""
        client = import_module("mlflow").MlflowClient(tracking_uri=self._uri)
        experiment = client.get_experiment_by_name(self._experiment)
        experiment_id = (
            client.create_experiment(self._experiment)
            if experiment is None
            else experiment.experiment_id
        )
        fingerprint = self._key.fingerprint
        runs = client.search_runs(
            [experiment_id], f"tags.`{_FINGERPRINT_TAG}` = '{fingerprint}'", max_results=1
        )
        if runs:
            run = runs[0]
            client.update_run(run.info.run_id, status="RUNNING")
        else:
            run = client.create_run(experiment_id, run_name=self._name, tags=self._mlflow_tags)
        return client, run.info.run_id
