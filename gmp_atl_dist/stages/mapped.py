"""Stages whose parts are independent of each other: each is computed by one task on any worker."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from gmp_atl_dist import runtime, stopping
from gmp_atl_dist.config import StreamWorkersConfig, WorkersConfig
from gmp_atl_dist.stages.base import Context
from gmp_atl_dist.stages.feeding import FeedRates, fed, remember
from gmp_atl_dist.stages.progress import PartsProgress
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey, Receipt, receipts_json
from gmp_atl_dist.store.progress import ProgressFile, forget_progress, read_progress
from gmp_atl_dist.store.writer import ArtifactWriter
from gmp_atl_dist.tags import Tags

ArgumentT = TypeVar("ArgumentT")


@dataclass(frozen=True)
class StoredParts:
    """Looks up, in a worker process, whether the parts of a task are stored by now, by any run."""

    store: Store
    key: ArtifactKey
    outputs: Callable[[str], Iterable[str]]

    def __call__(self, task: runtime.Task) -> str | None:
        """The receipts of the parts as JSON; None if one is missing."""
        out = ArtifactWriter(self.store, self.key)
        receipts: list[Receipt] = []
        for name in self.outputs(task.name):
            receipt = out.stored_part(name)
            if receipt is None:
                return None
            receipts.append(receipt)
        return receipts_json(receipts)


def map_parts(
    context: Context,
    out: ArtifactWriter,
    tags: Tags,
    tasks: Sequence[runtime.Task],
    worker: Callable[[ArgumentT], runtime.TaskWorker | runtime.StreamWorker],
    argument: ArgumentT,
    workers: WorkersConfig,
    outputs: Callable[[str], Iterable[str]],
    reader: Callable[[], runtime.TaskReader] | None = None,
    part_frames: int = 0,
) -> list[Receipt]:
    """Run the tasks whose output parts have no receipt yet. Returns all receipts, in any order.

    Args:
        tags: name the stage in progress bars, lines and metrics.
        argument: what each worker is made with.
        outputs: the names of the parts that a task writes.
        reader: with it, ``worker`` makes a ``StreamWorker``, and separate processes read the tables.
            They do not load what the worker's argument needs.
        part_frames: of each task of a stream, for a line about a better size.

    A worker returns its receipts as a JSON list. Several runs may work on one artefact at the same time:
    each leaves out the parts that another one has stored meanwhile.
    """
    done = out.done()
    wanted = {task.name: [f"parts/{name}.parquet" for name in outputs(task.name)] for task in tasks}
    missing = [task for task in tasks if any(n not in done for n in wanted[task.name])]
    again = {task.name for task in missing}
    receipts = [done[n] for name, names in wanted.items() if name not in again for n in names]
    if not missing:
        return receipts
    rates = FeedRates()
    progress = PartsProgress(tasks, missing, sum(r.audio_s for r in receipts))
    progress_file = ProgressFile(context.store, out.key)
    before = len(tasks) - len(missing)
    if before:
        context.reporter.line(f"{tags.label}: {before} of {len(tasks)} parts were done before")
    if read_progress(context.store, out.key) is not None:
        # Another run may be working on the same parts. In another order, the two seldom compute one at once.
        missing = random.Random().sample(missing, len(missing))
    found = 0
    with context.reporter.bar(tags) as bar:
        progress_file.write(progress.snapshot())
        bar.update(before, len(tasks))
        context.connection.open()
        if reader is not None and isinstance(workers, StreamWorkersConfig):
            workers = fed(workers, tags)
        stored = StoredParts(context.store, out.key, outputs)
        for result in _results(context, tags, missing, worker, argument, workers, reader, stored):
            stopping.check()
            written = [Receipt.model_validate(r) for r in json.loads(result.result)]
            out.remember(written)
            receipts += written
            progress.add(result)
            if result.found:
                found += 1
            else:
                rates.add(result)
            now = progress.snapshot()
            bar.update(
                now.done,
                now.total,
                now.unit,
                result.name,
                ends_in_s=now.ends_in_s,
                measures=now.measures(),
            )
            progress_file.write(now)
    forget_progress(context.store, out.key)
    if found:
        context.reporter.line(
            f"{tags.label}: {found} of {len(tasks)} parts were stored meanwhile by another run, or before a "
            f"node was lost; they were not computed again"
        )
    if reader is not None and isinstance(workers, StreamWorkersConfig):
        remember(workers, tags, rates)
        if advice := rates.advice(tags.label, workers, part_frames):
            context.reporter.line(advice)
    return receipts


def _results(
    context: Context,
    tags: Tags,
    tasks: Sequence[runtime.Task],
    worker: Callable[[ArgumentT], runtime.TaskWorker | runtime.StreamWorker],
    argument: ArgumentT,
    workers: WorkersConfig,
    reader: Callable[[], runtime.TaskReader] | None,
    stored: StoredParts,
) -> Iterator[runtime.TaskResult]:
    retries, stalled_after_s = context.settings.task_retries, context.settings.stalled_after_s
    if reader is None:
        mapped = cast("Callable[[ArgumentT], runtime.TaskWorker]", worker)
        return runtime.map_tasks(
            tasks,
            mapped,
            argument,
            workers=workers,
            retries=retries,
            tags=tags,
            stalled_after_s=stalled_after_s,
            stored=stored,
        )
    streamed = cast("Callable[[ArgumentT], runtime.StreamWorker]", worker)
    if not isinstance(workers, StreamWorkersConfig):
        raise TypeError(f"{tags.label} has a reader and no readers: {workers!r}")
    return runtime.stream_tasks(
        tasks,
        reader,
        streamed,
        argument,
        workers=workers,
        retries=retries,
        tags=tags,
        stalled_after_s=stalled_after_s,
        stored=stored,
    )
