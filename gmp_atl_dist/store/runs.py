"""Runs: what was started below a root, by whom it was configured, how far it came and what came out.

``runs/NAME/run.json`` holds the :class:`RunRecord` of one run. It is a description beside the artefacts:
no stage reads it, no fingerprint depends on it, and a lost record loses no result. A run that is resumed
keeps its record and adds an :class:`Attempt`.
"""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from gmp_atl_dist.errors import ArtifactError, ConfigError
from gmp_atl_dist.store.filesystem import Store

RUNS = "runs"
"""The folder below a root."""
RECORD_NAME = "run.json"
PAGE_NAME = "report.html"
"""The report page with the name, machine, durations and memory of the run, beside the record."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

AttemptState: TypeAlias = Literal["running", "done", "stopped", "failed"]
StageState: TypeAlias = Literal["running", "done", "found", "stopped", "failed"]


class _Record(BaseModel):
    # A later release may add fields; an older one ignores them.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Machine(_Record):
    """The machine of the driver."""

    host: str = ""
    system: str = ""
    """Operating system and architecture."""
    cpu: str = ""
    cpus: int = 0
    """Cores that the driver may use."""
    memory_bytes: int = 0
    gpus: tuple[str, ...] = ()
    ray_address: str = ""
    """The cluster; empty for a Ray of the run's own."""


class Attempt(_Record):
    """One start of ``gmp-atl run``. Times are Unix time in seconds."""

    started_s: float
    seen_s: float
    """When the driver last wrote that it is alive. An attempt that is ``running`` and was not seen for
    long was killed."""
    ended_s: float | None = None
    state: AttemptState = "running"
    message: str = ""
    """The error or the signal that ended it."""
    pid: int = 0
    """Process number of the driver on ``machine.host``; 0 if it is not known."""
    command: tuple[str, ...] = ()
    git_commit: str = ""
    """Of the working directory; with ``+`` at the end where files differ from it. Empty without git."""
    machine: Machine = Machine()
    versions: dict[str, str] = Field(default_factory=dict)
    log: str = ""
    """Path or URI of the log of Ray and other libraries. Logs of workers lie in a folder beside it, which has
    the same name without ``.log``."""
    job: str = ""
    """Submission id of the Ray job of the driver; of a RayJob its ``status.jobId``. Empty outside one."""
    cluster: str = ""
    """Name of the RayCluster that KubeRay made for it. Empty elsewhere."""


class StageRun(_Record):
    """What the newest attempt that reached a stage did there."""

    label: str
    """Name and fold, as people see it: ``finetune fold1``."""
    name: str
    fold: str = ""
    kind: str
    fingerprint: str
    state: StageState
    attempt: int
    """Index of the attempt, from 0."""
    started_s: float
    duration_s: float | None = None
    """Of this attempt. None while it runs."""
    earlier_s: float = 0.0
    """Seconds of earlier attempts at the same artefact; of a killed one until it was last seen."""
    audio_s: float = 0.0
    """Seconds of audio that this attempt worked through in the stage, repeated passes counted."""
    updates: int = 0
    held: dict[str, float] = Field(default_factory=dict)
    """Cores (``CPU``) and GPUs (``GPU``) that its workers held in this attempt. Empty: not known, as in
    records of earlier releases and where the number of workers may change."""
    peak_memory_bytes: int | None = None
    """Largest memory of the driver and its workers on the driver's machine; shared pages count once."""

    @property
    def total_s(self) -> float | None:
        """Seconds of all attempts at the artefact. None while it runs."""
        return None if self.duration_s is None else self.earlier_s + self.duration_s


class Score(_Record):
    """A pooled score. All values are fractions in [0, 1]."""

    value: float
    low: float
    high: float
    confidence: float


class RunRecord(_Record):
    """A run: one configuration below one root."""

    name: str
    config_name: str
    """Name of the configuration file, without folder and suffix."""
    fingerprint: str
    """Digest of the science configuration."""
    corpus_name: str
    """What people call the corpus; the report's title."""
    configuration: dict[str, JsonValue]
    """Science and runtime, without secrets, so that a run can be resumed from the store alone."""
    attempts: tuple[Attempt, ...] = ()
    stages: tuple[StageRun, ...] = ()
    """In the order in which they were reached."""
    report: str = ""
    """Fingerprint of the report; empty until it is done."""
    scores: dict[str, Score] = Field(default_factory=dict)
    """``war`` and ``uar``, pooled over the folds that were run."""
    chance: float | None = None
    verdict: tuple[str, ...] = ()
    """What the scores show, in sentences."""

    def stage(self, label: str) -> StageRun | None:
        """The stage with this label, if the run has reached it."""
        return next((s for s in self.stages if s.label == label), None)


def check_run_name(name: str) -> str:
    """``name``, if it can be a folder's name below any root.

    Raises:
        ConfigError: it has other characters than letters, digits, ``.``, ``_`` and ``-``.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"run name {name!r}: use 1 to 100 letters, digits, '.', '_' and '-', and begin with a "
            f"letter or digit"
        )
    return name


def write_run(store: Store, record: RunRecord) -> None:
    """Replace the record of a run."""
    text = record.model_dump_json(indent=1)
    store.put(f"{RUNS}/{check_run_name(record.name)}/{RECORD_NAME}", text.encode())


def read_run(store: Store, name: str) -> RunRecord | None:
    """The record of a run; None where there is none.

    Raises:
        ConfigError: ``name`` cannot be a run's name.
        ArtifactError: the record is damaged.
    """
    path = f"{RUNS}/{check_run_name(name)}/{RECORD_NAME}"
    if not store.exists(path):
        return None
    try:
        return RunRecord.model_validate_json(store.read(path))
    except ValidationError as e:
        raise ArtifactError(
            f"{store.uri}/{path} is damaged ({e.error_count()} problems); delete it: the next "
            f"gmp-atl run writes it again, and no result is lost"
        ) from e


def run_names(store: Store) -> tuple[str, ...]:
    """The names of all runs below a root, sorted."""
    return tuple(filter(_NAME.fullmatch, recorded_names(store, RUNS, RECORD_NAME)))


def recorded_names(store: Store, folder: str, record: str) -> tuple[str, ...]:
    """The names of the folders in ``folder`` that hold the object ``record``, sorted."""
    paths = (entry.path.split("/") for entry in store.list(folder))
    return tuple(sorted(path[1] for path in paths if len(path) == 3 and path[2] == record))
