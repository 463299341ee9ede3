"""The subject of ``benchmarks.scale`` with three corpora: the driver of a run.

It is the driver of a run whose ``ingest`` was killed after the last part of each source. Nothing is computed
on a worker: sources are listed, their parts are collected, indexed and sealed, and the corpora are combined.
Then folds are planned, and the training set of the first one is selected and cut into parts of ``extract``.
At last every update of one epoch of ``retrain`` is planned, as each worker of a training does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.harness.processes import GIB, forget_peak, peak_bytes
from benchmarks.inputs.sources import run_config, unseal
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.pipeline import ingested
from gmp_atl_dist.runtime import RayConnection
from gmp_atl_dist.stages.base import Context, Handle, Stage, find_or_run
from gmp_atl_dist.stages.frame_index import frame_index
from gmp_atl_dist.stages.ingest import Ingest
from gmp_atl_dist.stages.part_plan import plan_parts
from gmp_atl_dist.stages.planned_folds import folds_of_corpus
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.index import training_utterances
from gmp_atl_dist.store.training_set import TrainingSet

_WORKER = "batches"
STEPS: tuple[str, ...] = ("listing", "ingest", "combine", "folds", "training set", _WORKER)
"""In this order. The last one is the work of each worker of a training, not of the driver."""


@dataclass(frozen=True)
class DriverOfSources:
    """One size in one round.

    Attributes:
        step_s: seconds of each of ``STEPS``.
        cpu_s: CPU seconds of the process in each of them, which depend less on what else the machine does.
        peaks_gib: peak memory of the process in each of them.
    """

    utterances: int
    step_s: dict[str, float]
    cpu_s: dict[str, float]
    peaks_gib: dict[str, float]

    @property
    def driver_s(self) -> float:
        return sum(s for step, s in self.step_s.items() if step != _WORKER)

    @property
    def driver_cpu_s(self) -> float:
        return sum(s for step, s in self.cpu_s.items() if step != _WORKER)

    @property
    def driver_peak_gib(self) -> float:
        return max(gib for step, gib in self.peaks_gib.items() if step != _WORKER)


class _Steps:
    def __init__(self) -> None:
        self.step_s = dict.fromkeys(STEPS, 0.0)
        self.cpu_s = dict.fromkeys(STEPS, 0.0)
        self.peaks_gib = dict.fromkeys(STEPS, 0.0)

    @contextmanager
    def of(self, step: str) -> Iterator[None]:
        started_s, cpu_s = time.perf_counter(), time.process_time()
        forget_peak()
        yield
        self.cpu_s[step] += time.process_time() - cpu_s
        self.step_s[step] += time.perf_counter() - started_s
        self.peaks_gib[step] = max(self.peaks_gib[step], peak_bytes() / GIB)


def drive(folder: str, size: int) -> DriverOfSources:
    """The driver's work on the sources of ``folder``, which have ``size`` utterances."""
    config = run_config(folder)
    store = Store.open(config.runtime.root)
    context = Context(store, store, config.runtime, Reporter(False), RayConnection(config.runtime))
    steps = _Steps()
    unseal(store)

    def ensure(stage: Stage) -> Handle:
        if isinstance(stage, Ingest):
            with steps.of("listing"):
                _ = stage.key
        with steps.of("ingest" if isinstance(stage, Ingest) else "combine"):
            return find_or_run(stage, context)

    with context.connection as connection:
        # A driver has it open since the first part; it takes memory as well.
        connection.open()
        corpus = ingested(config, store, ensure)
        with steps.of("folds"):
            fold = folds_of_corpus(config, corpus)[0]
        speakers = fold.pseudo_label_speakers()
        with steps.of("training set"):
            index = frame_index(TrainingSet(corpus, speakers))
            plan_parts(index, config.extract.part_frames)
    # What each worker of the training does. Its libraries are no part of the driver.
    from gmp_atl_dist.training.batches import max_crop_samples
    from gmp_atl_dist.training.mixture import plan_updates

    with steps.of(_WORKER):
        retrain = config.retrain
        plan = plan_updates(
            corpus,
            training_utterances(corpus, speakers),
            retrain.unlabelled_share,
            batch_s=retrain.batch_s,
            max_samples=max_crop_samples(retrain.max_utterance_s),
            seed=retrain.seed,
        )
        drawn = sum(len(plan.batch(step)) for step in range(plan.batches_per_epoch))
    # An update draws half of its audio from unlabelled speech, so an epoch may draw a source twice.
    if drawn < index.num_rows // 2:
        raise RuntimeError(f"{drawn} of {index.num_rows} utterances are in the updates of an epoch")
    return DriverOfSources(size, steps.step_s, steps.cpu_s, steps.peaks_gib)
