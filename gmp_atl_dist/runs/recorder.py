"""Writes the record of a run while it runs: stages, durations, memory, machine, scores.

The record describes a run for people and is never needed to compute anything. So a store that refuses it
is reported once, and the run goes on.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from gmp_atl_dist.config import RunConfig, digest
from gmp_atl_dist.corpora.names import corpus_name
from gmp_atl_dist.errors import ArtifactError, GmpAtlError
from gmp_atl_dist.redaction import without_secrets
from gmp_atl_dist.run_log import FOLDER, current_log
from gmp_atl_dist.runs.attempts import end_of, spent_s, stage_run, with_attempt
from gmp_atl_dist.runs.facts import (
    git_commit,
    memory_of_family,
    this_cluster,
    this_command,
    this_job,
    this_machine,
    versions,
)
from gmp_atl_dist.runs.names import config_name, public_configuration
from gmp_atl_dist.runs.work import Work, done_before, work_of
from gmp_atl_dist.scheduling.demands import Held
from gmp_atl_dist.stages.base import Context, Stage
from gmp_atl_dist.stages.report import JSON_NAME, Report
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.layout import LAYOUT_VERSION, read_layout
from gmp_atl_dist.store.run_state import SEEN_EVERY_S
from gmp_atl_dist.store.runs import (
    PAGE_NAME,
    RUNS,
    Attempt,
    RunRecord,
    Score,
    StageRun,
    StageState,
    read_run,
    write_run,
)

_SAMPLE_EVERY_S = 2.0
_KEPT = ("attempts", "stages", "report", "scores", "chance", "verdict")
"""What an attempt takes over from those before it."""


class RunRecorder:
    """An observer of a run that keeps ``runs/NAME/run.json``; a context manager around the run.

    A thread writes the record when a stage begins or ends, and every 15 s, so that others can tell a run
    that works from one that was killed. It also samples the memory of the driver and of all processes
    below it every 2 s. Workers on a cluster that was running before are not below it and not counted; see
    :func:`gmp_atl_dist.runs.facts.memory_of_family`.
    """

    def __init__(
        self,
        config: RunConfig,
        context: Context,
        file: str | os.PathLike[str],
        *,
        every_s: float = SEEN_EVERY_S,
        sample_every_s: float = _SAMPLE_EVERY_S,
        memory: Callable[[], int] = memory_of_family,
    ) -> None:
        """``config.runtime.run_name`` is the run's name; see ``runs.names.named``. ``file`` is its file.

        ``memory`` measures; recorders of several runs of one process share one measurement.
        """
        self._memory = memory
        self._context = context
        self._store = context.store
        self._every_s, self._sample_every_s = every_s, sample_every_s
        now_s = time.time()
        address = config.runtime.ray_address or os.environ.get("RAY_ADDRESS") or ""
        self._attempt = Attempt(
            started_s=now_s,
            seen_s=now_s,
            pid=os.getpid(),
            command=this_command(),
            machine=this_machine(address, gpus=False),
            versions=versions(),
            log=self._log_place(ended=False),
            job=this_job(),
            cluster=this_cluster(),
        )
        self._record = self._base = RunRecord(
            name=config.runtime.run_name,
            config_name=config_name(file),
            fingerprint=digest(config.science()),
            corpus_name=corpus_name(config),
            configuration=public_configuration(config),
        )
        self._mine: dict[str, StageRun] = {}
        self._outcome: dict[str, object] = {}
        self._current: dict[str, StageRun] = {}
        """Stages that are under way, by label."""
        self._before: dict[str, Work] = {}
        self._report: Artifact | None = None
        self._is_new_report = False
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._wake, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="run-record", daemon=True)
        self._may_write = self._warned = False

    @property
    def record(self) -> RunRecord:
        """The record as it was last written or read."""
        return self._record

    @property
    def page(self) -> str:
        """Path or URI of the report page of this run."""
        return f"{self._store.uri}/{RUNS}/{self._record.name}/{PAGE_NAME}"

    def __enter__(self) -> Self:
        with suppress(GmpAtlError):
            # What earlier attempts wrote. The run itself reports a store that does not answer.
            self._record = self._merged()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._wake.set()
        self._thread.join()
        state, message = end_of(error)
        now_s = time.time()
        with self._lock:
            for label in list(self._current):
                self._end(label, "failed" if state == "failed" else "stopped", now_s)
            self._attempt = self._attempt.model_copy(
                update={
                    "seen_s": now_s,
                    "ended_s": now_s,
                    "state": state,
                    "message": message,
                    "log": self._log_place(ended=True),
                }
            )
        self._write()
        if error is None:
            self._guarded(self._write_page)

    def stage_found(self, stage: Stage, artifact: Artifact) -> None:
        fingerprint = stage.key.fingerprint
        known = self._record.stage(stage.label)
        is_known = known is not None and known.fingerprint == fingerprint
        # What an earlier attempt measured is worth more than that this one found the result.
        if not (is_known and known is not None and known.state in ("done", "found")):
            with self._lock:
                self._mine[stage.label] = stage_run(stage, "found", duration_s=0.0)
            self._wake.set()
        self._note_report(stage, artifact)

    def stage_started(self, stage: Stage, held: Held) -> None:
        known = self._record.stage(stage.label)
        again = known is not None and known.fingerprint == stage.key.fingerprint
        self._guarded(lambda: self._note_before(stage, again))
        with self._lock:
            started = stage_run(stage, "running").model_copy(update={"held": dict(held)})
            if known is not None and again:
                started = started.model_copy(update={"earlier_s": spent_s(self._record, known)})
            self._current[stage.label] = self._mine[stage.label] = started
            self._sample()
        self._wake.set()

    def stage_done(self, stage: Stage, artifact: Artifact) -> None:
        now_s = time.time()
        with self._lock:
            self._sample()
            self._end(stage.label, "done", now_s)
        self._guarded(lambda: self._note_work(stage, artifact))
        self._is_new_report = self._is_new_report or isinstance(stage, Report)
        self._note_report(stage, artifact)
        self._wake.set()

    def _note_before(self, stage: Stage, again: bool) -> None:
        self._before[stage.label] = done_before(stage, self._store) if again else Work()

    def _note_work(self, stage: Stage, artifact: Artifact) -> None:
        work = work_of(stage, artifact).without(self._before.pop(stage.label, Work()))
        with self._lock:
            done = self._mine[stage.label]
            self._mine[stage.label] = done.model_copy(
                update={"audio_s": work.audio_s, "updates": work.updates}
            )

    def _note_report(self, stage: Stage, artifact: Artifact) -> None:
        if isinstance(stage, Report):
            self._report = artifact
            self._guarded(self._note_scores)

    def _note_scores(self) -> None:
        if self._report is None:
            return
        content = json.loads(self._report.read_file(JSON_NAME))
        pooled = content["pooled"]
        scores, intervals = pooled["outcome"]["scores"], pooled["outcome"]["intervals"]
        self._outcome = {
            "report": self._report.key.fingerprint,
            "scores": {
                name: Score(
                    value=scores[name],
                    low=intervals[name][0],
                    high=intervals[name][1],
                    confidence=intervals["confidence"],
                )
                for name in ("war", "uar")
            },
            "chance": 1 / len(content["classes"]),
            "verdict": tuple((pooled.get("verdict") or {}).get("sentences", ())),
        }

    def _write_page(self) -> None:
        """Render the page again only for a new report: it takes seconds."""
        path = f"{RUNS}/{self._record.name}/{PAGE_NAME}"
        if self._report is None or not (self._is_new_report or not self._store.exists(path)):
            return
        from gmp_atl_dist.stages.report_page import run_page

        audio = self._context.settings.report_audio
        self._store.put(path, run_page(self._report, self._record, audio=audio))

    def _watch(self) -> None:
        """The thread: facts that take a while, memory, and the record."""
        self._guarded(self._note_slow_facts)
        written_s = float("-inf")
        while not self._over.is_set():
            is_due = self._wake.wait(self._sample_every_s)
            self._wake.clear()
            if self._over.is_set():
                return
            with self._lock:
                self._sample()
            if is_due or not self._may_write or time.monotonic() - written_s >= self._every_s:
                self._write()
                written_s = time.monotonic()

    def _note_slow_facts(self) -> None:
        commit = git_commit()
        machine = this_machine(self._attempt.machine.ray_address)
        with self._lock:
            update = {"git_commit": commit, "machine": machine}
            self._attempt = self._attempt.model_copy(update=update)

    def _sample(self) -> None:
        """Raise the peaks of the stages that run. Call it with the lock.

        Processes of several stages are not told apart: each peak is of all of them together.
        """
        if not self._current:
            return
        now_bytes = self._memory()
        for label, stage in self._current.items():
            peak = max(stage.peak_memory_bytes or 0, now_bytes)
            raised = stage.model_copy(update={"peak_memory_bytes": peak})
            self._current[label] = self._mine[label] = raised

    def _end(self, label: str, state: StageState, now_s: float) -> None:
        """End a stage that runs. Call it with the lock."""
        stage = self._current.pop(label, None)
        if stage is not None:
            took_s = now_s - stage.started_s
            self._mine[label] = stage.model_copy(update={"state": state, "duration_s": took_s})

    def _write(self) -> None:
        self._guarded(self._put_record)

    def _put_record(self) -> None:
        with self._writing:
            # A root that the run has not accepted yet, or refuses, is left alone.
            self._may_write = self._may_write or read_layout(self._store) == LAYOUT_VERSION
            if not self._may_write:
                return
            if self._attempt.state == "running":
                update = {"seen_s": time.time()}
                self._attempt = self._attempt.model_copy(update=update)
            self._record = self._merged()
            write_run(self._store, self._record)

    def _merged(self) -> RunRecord:
        """The stored record with what this attempt knows. Another driver may have written meanwhile."""
        record = self._base
        with suppress(ArtifactError):  # a damaged record is replaced
            stored = read_run(self._store, record.name)
            if stored is not None and stored.fingerprint == record.fingerprint:
                record = record.model_copy(update={name: getattr(stored, name) for name in _KEPT})
        with self._lock:
            record = record.model_copy(update=self._outcome)
            return with_attempt(record, self._attempt, self._mine)

    def _log_place(self, *, ended: bool) -> str:
        log = current_log()
        if log is None or (ended and log.is_empty):
            return ""
        is_remote = "://" in self._store.uri and not self._store.uri.startswith("file://")
        # A copy is put below a remote root when the run ends.
        return (
            f"{self._store.uri}/{FOLDER}/{log.path.name}" if ended and is_remote else str(log.path)
        )

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as e:  # a run must not fail because of its description
            if not self._warned:
                self._context.reporter.warning(
                    f"the record of this run, {RUNS}/{self._record.name}, is not complete; the run goes "
                    f"on: {without_secrets(f'{type(e).__name__}: {e}')}"
                )
            self._warned = True
