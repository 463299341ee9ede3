"""What a stage is: a pure function from sealed artefacts to one sealed artefact."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar, cast

from gmp_atl_dist import runtime
from gmp_atl_dist.config import Json, RuntimeConfig, StreamWorkersConfig, WorkersConfig
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.records import Problem
from gmp_atl_dist.stages.progress import Progress, ProgressFile, forget_progress
from gmp_atl_dist.store.artifact import Artifact, ArtifactKey, ArtifactWriter, Receipt
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.tags import Tags

ArgumentT = TypeVar("ArgumentT")


@dataclass(frozen=True)
class Context:
    """Where a stage runs: nothing in here changes what it produces."""

    store: Store
    source: Store
    settings: RuntimeConfig
    reporter: Reporter
    cluster: runtime.Cluster

    def tags(self, label: str) -> Tags:
        """Of the stage that a person calls ``label``."""
        return Tags.of(label, self.settings.run_name)


@dataclass(frozen=True)
class Pending:
    """An artefact that is not there yet; its identity is known because it is its fingerprint."""

    key: ArtifactKey

    @property
    def identity(self) -> str:
        return self.key.fingerprint


@dataclass(frozen=True)
class Seal:
    """What a stage says at its end; goes into the manifest."""

    identity: str | None = None
    problems: Sequence[Problem] = ()
    notes: Mapping[str, str] = field(default_factory=dict)


class Stage(ABC):
    """One stage with its inputs and its slice of the configuration.

    The fingerprint follows from ``kind``, ``version``, :meth:`science` and the identities of
    :meth:`inputs`, and from nothing else; raise ``version`` when the same inputs give other bytes.
    """

    kind: ClassVar[str]
    version: ClassVar[int] = 1
    identity_is_fingerprint: ClassVar[bool] = True
    """False where inputs lie outside the store, so that identity is known only after a look."""
    iteration: int = 0
    """Of pretraining, counted from 1; 0 outside it. Part of the name alone."""

    @abstractmethod
    def science(self) -> dict[str, Json]:
        """What of the configuration determines the result."""

    @abstractmethod
    def inputs(self) -> Mapping[str, Artifact | Pending]:
        """What it is made from."""

    @abstractmethod
    def run(self, context: Context, out: ArtifactWriter) -> Seal:
        """Write parts and files; what has a receipt already is not done again."""

    @property
    def name(self) -> str:
        """What ``gmp-atl stage`` calls it; pretraining has stages of kinds that come again later."""
        return f"{self.kind}{self.iteration or ''}"

    @property
    def label(self) -> str:
        """What a person calls it."""
        return self.name

    @property
    def key(self) -> ArtifactKey:
        identities = {name: handle.identity for name, handle in self.inputs().items()}
        return ArtifactKey.of(self.kind, self.version, self.science(), identities)


def sealed(handle: Artifact | Pending) -> Artifact:
    """The artefact behind a handle.

    Raises:
        ArtifactError: it is not there yet.
    """
    if isinstance(handle, Pending):
        raise ArtifactError(
            f"{handle.key.kind} {handle.key.fingerprint[:12]} is not there yet; run the stages "
            f"before this one first"
        )
    return handle


def map_parts(
    context: Context,
    out: ArtifactWriter,
    label: str,
    tasks: Sequence[runtime.Task],
    worker: Callable[[ArgumentT], runtime.TaskWorker | runtime.StreamWorker],
    argument: ArgumentT,
    workers: WorkersConfig,
    outputs: Callable[[str], Iterable[str]],
    reader: Callable[[], runtime.TaskReader] | None = None,
) -> list[Receipt]:
    """Do the tasks whose output parts have no receipt yet; receipts of all, in no special order.

    ``outputs`` names the parts that a task writes. A worker returns its receipts as a JSON list. With
    a ``reader`` the worker is a ``StreamWorker``, and tables are read by processes of their own, which
    need not load what the worker's argument does.
    """
    done = out.done()
    wanted = {task.name: [f"parts/{name}.parquet" for name in outputs(task.name)] for task in tasks}
    missing = [task for task in tasks if any(n not in done for n in wanted[task.name])]
    again = {task.name for task in missing}
    receipts = [done[n] for name, names in wanted.items() if name not in again for n in names]
    if not missing:
        return receipts
    progress = Progress(tasks, missing, sum(r.audio_s for r in receipts))
    file = ProgressFile(context.store, out.key)
    before = len(tasks) - len(missing)
    if before:
        context.reporter.line(f"{label}: {before} of {len(tasks)} parts were done before")
    with context.reporter.bar(label) as bar:
        file.leave(progress.snapshot())
        bar.update(before, len(tasks))
        context.cluster.open()
        for result in _results(context, label, missing, worker, argument, workers, reader):
            found = [Receipt.model_validate(r) for r in json.loads(result.result)]
            out.remember(found)
            receipts += found
            progress.add(result)
            now = progress.snapshot()
            bar.update(now.done, now.total, now.note(), part=result.name)
            file.leave(now)
    forget_progress(context.store, out.key)
    return receipts


def _results(
    context: Context,
    label: str,
    tasks: Sequence[runtime.Task],
    worker: Callable[[ArgumentT], runtime.TaskWorker | runtime.StreamWorker],
    argument: ArgumentT,
    workers: WorkersConfig,
    reader: Callable[[], runtime.TaskReader] | None,
) -> Iterator[runtime.TaskResult]:
    retries, tags = context.settings.task_retries, context.tags(label)
    if reader is None:
        mapped = cast("Callable[[ArgumentT], runtime.TaskWorker]", worker)
        return runtime.map_tasks(
            tasks, mapped, argument, workers=workers, retries=retries, tags=tags
        )
    streamed = cast("Callable[[ArgumentT], runtime.StreamWorker]", worker)
    if not isinstance(workers, StreamWorkersConfig):
        raise TypeError(f"{label} has a reader and no readers: {workers!r}")
    return runtime.stream_tasks(
        tasks, reader, streamed, argument, workers=workers, retries=retries, tags=tags
    )
