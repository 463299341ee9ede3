"""Stages and trainings without Ray: a loop stands in for its workers, one rank for its gang.

What runs is the package's own code, but for the four ways into Ray. Test modules get the fixtures by
``pytest_plugins = ["support.one_process"]``. They import it before pytest could rewrite its assertions, and
it has none: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pytest
import torch
import torch.distributed as dist

from gmp_atl_dist import runtime
from gmp_atl_dist.config import CorpusConfig, Json, ModelConfig, RunConfig
from gmp_atl_dist.config.file import parse_config
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.corpora.synth import write_synthetic_corpus
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.runtime import (
    FindStored,
    PoolWorker,
    StreamWorker,
    Task,
    TaskReader,
    TaskResult,
    TaskWorker,
)
from gmp_atl_dist.stages.backbone import Backbone
from gmp_atl_dist.stages.base import Context, Stage, run_and_seal
from gmp_atl_dist.stages.ingest import Ingest
from gmp_atl_dist.store.artifact import Artifact, find_artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.training.loop import TrainJob, run_training

ArgumentT = TypeVar("ArgumentT")


class Stopped(Exception):
    """What a killed worker looks like from inside."""


class OneRank:
    """A gang of one. ``stop_after`` kills it once that many checkpoints are safe."""

    rank = 0
    world_size = 1
    node = 0
    node_leader = True

    def __init__(self, *, stop_after: int | None = None) -> None:
        self._stop_after = stop_after
        self.reported: list[int] = []
        self.measured: list[dict[str, float]] = []

    def report(self, step: int) -> None:
        self.reported.append(step)
        if len(self.reported) == self._stop_after:
            raise Stopped

    def preemption_pending(self) -> bool:
        return False

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        self.measured.append(dict(metrics))


@contextmanager
def one_rank() -> Iterator[None]:
    """The process group and the environment that a rank of one process finds."""
    before = dict(os.environ)
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "DS_ACCELERATOR": "cpu"}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # Kept for the session: DeepSpeed does not get over a group that is gone.
        if not dist.is_initialized():
            folder = tempfile.mkdtemp(prefix="gmp-atl-")
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            method = f"file://{folder}/group"
            dist.init_process_group("gloo", init_method=method, rank=0, world_size=1)
        yield
    finally:
        torch.set_num_threads(threads)
        os.environ.clear()
        os.environ.update(before)


def train_here(job: TrainJob, gang: OneRank) -> None:
    with one_rank():
        run_training(job, gang)


def map_here(
    tasks: Sequence[Task],
    worker: Callable[[ArgumentT], TaskWorker],
    argument: ArgumentT,
    stored: FindStored = lambda _: None,
    **_: object,
) -> Iterator[TaskResult]:
    made = worker(argument)
    for task in tasks:
        found = stored(task)
        result = made(task) if found is None else found
        yield TaskResult(task.name, result, "here", 1.0, 1.0, found=found is not None)


def stream_here(
    tasks: Sequence[Task],
    reader: Callable[[], TaskReader],
    worker: Callable[[ArgumentT], StreamWorker],
    argument: ArgumentT,
    stored: FindStored = lambda _: None,
    **_: object,
) -> Iterator[TaskResult]:
    read, made = reader(), worker(argument)
    for task in tasks:
        found = stored(task)
        result = made.compute(task, read(task))() if found is None else found
        yield TaskResult(task.name, result, "here", 1.0, 1.0, found=found is not None)


class PoolHere:
    """One worker of this process."""

    def __init__(self, worker: PoolWorker[object, object]) -> None:
        self._worker = worker

    def ask(self, tasks: Sequence[Task], order: object) -> Iterator[object]:
        for task in tasks:
            yield self._worker(task, order)


@contextmanager
def pool_here(
    worker: Callable[[ArgumentT], PoolWorker[object, object]], argument: ArgumentT, **_: object
) -> Iterator[PoolHere]:
    yield PoolHere(worker(argument))


@contextmanager
def no_ray() -> Iterator[None]:
    """The four ways into Ray are loops of this process meanwhile."""

    def train(loop: Callable[[ArgumentT, OneRank], None], argument: ArgumentT, **_: object) -> None:
        with one_rank():
            loop(argument, OneRank())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "map_tasks", map_here)
        patch.setattr(runtime, "stream_tasks", stream_here)
        patch.setattr(runtime, "open_pool", pool_here)
        patch.setattr(runtime, "train", train)
        patch.setattr(runtime.RayConnection, "open", lambda _: None)
        yield


@pytest.fixture
def in_process() -> Iterator[None]:
    with no_ray():
        yield


def context_of(root: Path | str, corpus: Path | str, config: RunConfig | None = None) -> Context:
    settings = (config or RunConfig()).runtime
    return Context(
        Store.open(str(root)),
        Store.open(str(corpus)),
        settings,
        Reporter(terminal=False),
        runtime.RayConnection(settings),
    )


def finish(stage: Stage, context: Context) -> Artifact:
    """The artefact of a stage, run unless it was run before."""
    return find_artifact(context.store, stage.key) or run_and_seal(stage, context)


def ingest(context: Context, **corpus: Json) -> Artifact:
    """The corpus of ``context``, read and ingested."""
    config = CorpusConfig.model_validate(corpus)
    return finish(Ingest(config, context.source), context)


@dataclass(frozen=True)
class Tiny:
    """A corpus of 40 short utterances and a tiny random HuBERT, in a store."""

    folder: Path
    context: Context
    corpus: Artifact
    backbone: Artifact

    def with_root(self, root: Path) -> Context:
        """Another root for what a test writes."""
        return replace(self.context, store=Store.open(str(root)))


FOLD = Fold(
    name="fold1",
    test_speakers=("Ses01F", "Ses01M"),
    valid_speakers=("Ses02F", "Ses02M"),
    train_speakers=("Ses03F", "Ses03M", "Ses04F", "Ses04M", "Ses05F", "Ses05M"),
)


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "corpus"
    write_synthetic_corpus(folder, utterances_per_speaker_and_emotion=1, seconds=(0.3, 0.6))
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("tiny-store")
    context = context_of(folder / "root", tiny_corpus)
    with no_ray():
        corpus = ingest(context, part_audio_s=5)
        backbone = finish(Backbone(ModelConfig(source="random:tiny")), context)
    return Tiny(tiny_corpus, context, corpus, backbone)


def tiny_experiment(corpus: Path, root: Path | str, /, **sections: dict[str, object]) -> RunConfig:
    """One fold of the tiny corpus, every stage as short as can be."""
    short = {"batch_s": 3.0, "lr": 1e-3, "dropout": 0.0}
    raw: dict[str, dict[str, object]] = {
        "corpus": {"part_audio_s": 5},
        "folds": {"by": "session", "run": [1], "valid": "next"},
        "model": {"source": "random:tiny"},
        "warmup": {**short, "epochs": 1},
        "extract": {"layers": [2, 3]},
        "cluster": {"scales": [{"layer": 2, "k": 5}, {"layer": 3, "k": 7}], "iterations": 5},
        "retrain": {**short, "steps": 2, "projection_dim": 16},
        "finetune": {**short, "epochs": 2, "embedding_dim": 16},
        "evaluate": {"bootstrap_samples": 50},
        "runtime": {"corpus": str(corpus), "root": str(root)},
    }
    for name, keys in sections.items():
        raw[name] = raw.get(name, {}) | keys
    return parse_config(raw, "the test's configuration")
