"""The subjects of ``benchmarks.scale`` that look at one corpus: growth with its size, requests of a part."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.harness.processes import GIB, peak_bytes
from benchmarks.harness.rounds import MeasurementError
from benchmarks.harness.s3_requests import counted_requests
from benchmarks.inputs.silence import (
    FOLD,
    LAYERS,
    PART_UTTERANCES,
    corpus_of,
    extractor_argument,
    part_task,
    write_corpus,
)
from gmp_atl_dist.config import RuntimeConfig, StreamWorkersConfig
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.inference.audio_slices import AudioSlices
from gmp_atl_dist.inference.extractor import Extractor
from gmp_atl_dist.runtime import RayConnection, Task
from gmp_atl_dist.stages.base import Context
from gmp_atl_dist.stages.frame_index import frame_index
from gmp_atl_dist.stages.mapped import map_parts
from gmp_atl_dist.stages.part_plan import plan_parts
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.features import feature_part_name
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.training_set import TrainingSet
from gmp_atl_dist.store.writer import ArtifactWriter
from gmp_atl_dist.tags import Tags

_BATCH_S = 60.0


@dataclass(frozen=True)
class Growth:
    """One size of corpus in one round."""

    utterances: int
    parts: int
    planning_s: float
    run_s: float
    driver_peak_gib: float

    @property
    def overhead_ms_per_part(self) -> float:
        return 1000 * self.run_s / self.parts


def grow(uri: str, size: int) -> Growth:
    """Plan and extract. The time runs from the end of the first part to the end of the last one, and is
    scaled to all parts: what comes before is the start of Ray and its workers.

    Raises:
        MeasurementError: there are fewer than two parts.
    """
    workers = StreamWorkersConfig(workers=1, batch_s=_BATCH_S)
    settings = RuntimeConfig(root=uri, extract=workers)
    store = Store.open(uri)
    context = Context(store, store, settings, Reporter(False), RayConnection(settings))
    with context.connection as connection:
        connection.open()
        started_s = time.perf_counter()
        tasks = plan_parts(
            frame_index(TrainingSet(corpus_of(store), FOLD.training_speakers())), PART_UTTERANCES
        )
        planned_s = time.perf_counter()
        if len(tasks) < 2:
            raise MeasurementError(f"{size} utterances are one part; use larger --sizes")
        artifact = _extract(context, tasks, workers)
    rows = sum(receipt.rows for receipt in artifact.manifest.receipts)
    if rows != size * len(LAYERS):
        raise RuntimeError(f"{rows} rows of features for {size} utterances")
    run_s = _first_to_last_s(artifact, len(tasks)) * len(tasks) / (len(tasks) - 1)
    return Growth(size, len(tasks), planned_s - started_s, run_s, peak_bytes() / GIB)


def _first_to_last_s(artifact: Artifact, parts: int) -> float:
    """Seconds from the end of the first part to the end of the last one, by the times of receipts.

    The receipts of a part's layers are written one after another; the last one ends the part.
    """
    receipts = artifact.store.list(f"{artifact.key.prefix}/receipts")
    ended_ns = sorted(entry.mtime_ns for entry in receipts)
    if len(ended_ns) != parts * len(LAYERS):
        raise RuntimeError(f"{len(ended_ns)} receipts of {parts} parts of {len(LAYERS)} layers")
    return (ended_ns[-1] - ended_ns[len(LAYERS) - 1]) / 1e9


def _extract(context: Context, tasks: Sequence[Task], workers: StreamWorkersConfig) -> Artifact:
    argument = extractor_argument(context.store, os.urandom(8).hex(), workers)
    out = ArtifactWriter(context.store, argument.key)
    map_parts(
        context,
        out,
        Tags(stage="extract"),
        tasks,
        Extractor,
        argument,
        workers,
        outputs=lambda part: [feature_part_name(part, layer) for layer in LAYERS],
        reader=partial(AudioSlices, argument.forward.selection),
    )
    return out.seal(version=1, science={}, inputs={})


def requests_per_part() -> dict[str, int]:
    """HTTP requests by method of one part of one-second utterances: a reader's and a worker's."""
    with counted_requests() as (uri, counts):
        write_corpus(uri, PART_UTTERANCES, samples=16_000)
        argument = extractor_argument(Store.open(uri), "requests", StreamWorkersConfig())
        reader, worker = AudioSlices(argument.forward.selection), Extractor(argument)
        task = part_task("part-00000", 0)
        worker.compute(task, reader(task))()
        counts.clear()
        worker.compute(task, reader(task))()
        return dict(counts)
