"""What a stage is: a pure function from sealed artefacts to one sealed artefact."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

from gmp_atl_dist import runtime
from gmp_atl_dist.config import Json, RuntimeConfig, WorkersConfig
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.records import Problem
from gmp_atl_dist.store.artifact import Artifact, ArtifactKey, ArtifactWriter, Receipt
from gmp_atl_dist.store.filesystem import Store

ArgumentT = TypeVar("ArgumentT")


@dataclass(frozen=True)
class Context:
    """Where a stage runs: nothing in here changes what it produces."""

    store: Store
    source: Store
    settings: RuntimeConfig
    reporter: Reporter
    cluster: runtime.Cluster


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
    def label(self) -> str:
        """What a person calls it."""
        return self.kind

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
    worker: Callable[[ArgumentT], runtime.TaskWorker],
    argument: ArgumentT,
    workers: WorkersConfig,
    outputs: Callable[[str], Iterable[str]],
) -> list[Receipt]:
    """Do the tasks whose output parts have no receipt yet; receipts of all, in no special order.

    ``outputs`` names the parts that a task writes. A worker returns its receipts as a JSON list.
    """
    done = out.done()
    wanted = {task.name: [f"parts/{name}.parquet" for name in outputs(task.name)] for task in tasks}
    receipts = [done[n] for names in wanted.values() for n in names if n in done]
    missing = [task for task in tasks if any(n not in done for n in wanted[task.name])]
    finished = len(tasks) - len(missing)
    with context.reporter.bar(label) as bar:
        bar.update(finished, len(tasks))
        if not missing:
            return receipts
        if finished:
            context.reporter.line(f"{label}: {finished} of {len(tasks)} parts were done before")
        context.cluster.open()
        results = runtime.map_tasks(
            missing, worker, argument, workers=workers, retries=context.settings.task_retries
        )
        for result in results:
            receipts += [Receipt.model_validate(r) for r in json.loads(result)]
            finished += 1
            audio_s = sum(r.audio_s for r in receipts)
            bar.update(finished, len(tasks), f"{audio_s / 3600:.2f} h" if audio_s else "")
    return receipts
