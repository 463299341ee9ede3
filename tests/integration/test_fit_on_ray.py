"""Codebooks fitted by processes of a real Ray: the same bytes from any number, also when they die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest
import ray
from support.local_ray import local_ray
from support.one_process import FOLD, Tiny, finish, no_ray
from support.plans import plan_of
from support.pool_workers import Doubler
from support.stored_features import put_features_of, spoken

from gmp_atl_dist import runtime
from gmp_atl_dist.clustering.engines import EngineChoice
from gmp_atl_dist.clustering.state import state_from_bytes
from gmp_atl_dist.config import ClusterConfig, ClusterWorkersConfig, RuntimeConfig
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.errors import ConfigError, WorkerError
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.stages import cluster
from gmp_atl_dist.stages.base import Context
from gmp_atl_dist.stages.cluster import Cluster
from gmp_atl_dist.stages.label import Label
from gmp_atl_dist.stages.layer_fit import LayerFit
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.readers import read_utterances
from gmp_atl_dist.store.training_set import TrainingSet

pytest_plugins = ["support.one_process"]
pytestmark = pytest.mark.timeout(900)

HERE = Path(__file__).parents[:2]
UPDATES = 30
DIED_AT = 5
HANGS_S = 300.0


@pytest.fixture(scope="module")
def cores() -> Iterator[None]:
    """A Ray of this module's own, with room for four workers."""
    with local_ray(num_cpus=4, object_store_memory=200 << 20):
        yield


def at(tiny: Tiny, root: Path, workers: int, engine: EngineChoice = "auto") -> Context:
    settings = RuntimeConfig(cluster=ClusterWorkersConfig(workers=workers, engine=engine))
    return replace(tiny.with_root(root), settings=settings, reporter=Reporter(terminal=False))


def fitted(
    tiny: Tiny, root: Path, workers: int = 1, parts: int = 9, engine: EngineChoice = "auto"
) -> tuple[dict[str, str], dict[str, str]]:
    """sha256 of what ``cluster`` and ``label`` write."""
    context = at(tiny, root, workers, engine)
    training = [u.utterance_id for u in FOLD.select(read_utterances(tiny.corpus), "train")]
    layers = {layer: spoken(tiny, training, layer, dim=16) for layer in (2, 3)}
    features = put_features_of(context, f"{parts}", layers, parts)
    scales = [{"layer": 2, "k": 8}, {"layer": 3, "k": 5}, {"layer": 2, "k": 20}]
    config = ClusterConfig.model_validate(
        {"scales": scales, "iterations": UPDATES, "tolerance": 0, "stability_frames": 100}
    )
    training = TrainingSet(tiny.corpus, FOLD.training_speakers())
    codebooks = finish(Cluster(config, features, training, plan_of()), context)
    with no_ray():
        labels = finish(Label(features, codebooks, training), context)
    return hashes(codebooks), hashes(labels)


def hashes(artifact: Artifact) -> dict[str, str]:
    return {r.name: r.sha256 for r in artifact.manifest.receipts}


@pytest.fixture(scope="module")
def expected(
    tiny: Tiny, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, str], dict[str, str]]:
    """By one process without Ray."""
    folder = tmp_path_factory.mktemp("one")
    with no_ray():
        return fitted(tiny, folder / "root")


@pytest.fixture(autouse=True)
def always_distributed(monkeypatch: pytest.MonkeyPatch) -> None:
    """So little would be left to one process otherwise."""
    monkeypatch.setattr(cluster, "_ONE_PROCESS_FLOP", 0.0)


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2, 4])
def test_any_number_of_workers_writes_the_same_bytes(
    cores: None,
    tiny: Tiny,
    expected: tuple[dict[str, str], dict[str, str]],
    tmp_path: Path,
    workers: int,
) -> None:
    assert fitted(tiny, tmp_path, workers) == expected


def test_a_killed_worker_changes_no_byte(
    cores: None, tiny: Tiny, expected: tuple[dict[str, str], dict[str, str]], tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill() -> None:
        deadline_s = time.monotonic() + HANGS_S
        while time.monotonic() < deadline_s:
            if updates(tmp_path) >= 2:
                (victim, *_) = fitters()
                os.kill(victim.pid, signal.SIGKILL)
                killed.append(updates(tmp_path))
                return
            time.sleep(0.005)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    found = fitted(tiny, tmp_path, 2)
    thread.join()
    assert found == expected
    assert killed
    assert killed[0] < UPDATES


@pytest.mark.nightly
def test_the_torch_engine_writes_the_same_bytes_also_when_workers_and_the_fit_are_killed(
    cores: None, tiny: Tiny, tmp_path: Path
) -> None:
    """One process; four workers of which one is killed, and whose driver stops; two workers resume."""
    with no_ray():
        expected = fitted(tiny, tmp_path / "one", engine="torch")
    root = tmp_path / "many"
    save, killed = LayerFit._save, []

    def killing(self: LayerFit, *arguments: object) -> None:
        save(self, *arguments)  # pyright: ignore[reportArgumentType]
        if updates(root) == 2 and not killed:
            (victim, *_) = fitters()
            os.kill(victim.pid, signal.SIGKILL)
            killed.append(victim.pid)
        if updates(root) == DIED_AT:
            raise DriverDied

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LayerFit, "_save", killing)
        with pytest.raises(DriverDied):
            fitted(tiny, root, 4, engine="torch")
    assert killed
    assert updates(root) == DIED_AT
    assert fitted(tiny, root, 2, engine="torch") == expected


class DriverDied(BaseException):
    """A dead driver, from inside."""


def updates(root: Path) -> int:
    """Of the fit that is furthest, by its checkpoints."""
    found = [0]
    for path in root.glob("artifacts/codebook/*/lloyd/*.safetensors"):
        try:
            state = state_from_bytes(path.read_bytes())
        except FileNotFoundError:
            continue
        found.append(0 if state is None else state.updates)
    return max(found)


def fitters() -> list[psutil.Process]:
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if any(word.startswith("ray::PoolProcess") for word in process.cmdline())
    ]


@pytest.mark.slow
def test_a_killed_driver_resumes_from_its_checkpoint(
    tiny: Tiny,
    expected: tuple[dict[str, str], dict[str, str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """SIGKILL during the sixth assignment step: five updates are stored, and no more."""
    root = tmp_path / "root"
    job = Job(tiny.folder, tiny.context.store.uri.removeprefix("file://"), str(root))
    with (tmp_path / "log").open("wb") as log:
        driver = subprocess.Popen(
            [sys.executable, __file__, *map(str, (job.corpus, job.ingested, job.root))],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, HERE))},
        )
    try:
        deadline_s = time.monotonic() + HANGS_S
        while not (root / "sixth-step").exists():
            assert driver.poll() is None, (tmp_path / "log").read_text()[-3000:]
            assert time.monotonic() < deadline_s, (tmp_path / "log").read_text()[-3000:]
            time.sleep(0.02)
        driver.kill()
        driver.wait()
    finally:
        end_session(driver.pid)
    assert updates(root) == DIED_AT

    with no_ray():
        assert fitted(tiny, root) == expected
    said = capsys.readouterr().out
    assert said.count(f"resumes after update {DIED_AT}") == 2  # both scales of layer 2
    assert updates(root) == 0  # checkpoints are gone


def end_session(sid: int) -> None:
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == sid:
                process.kill()
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue


def asked(argument: str, *names: str, most: int = 2, stalled_after_s: float = HANGS_S) -> list[int]:
    with runtime.open_pool(
        Doubler,
        argument,
        workers=ClusterWorkersConfig(workers=(1, 9)),
        most=most,
        retries=1,
        stalled_after_s=stalled_after_s,
    ) as pool:
        tasks = [Task(name) for name in names]
        return [*pool.ask(tasks, 2), *pool.ask(tasks, 3)]


def test_a_pool_answers_in_order_again_and_again(cores: None) -> None:
    names = [str(n) for n in range(23)]
    assert asked("", *names) == [f * n for f in (2, 3) for n in range(23)]


@pytest.mark.slow
def test_a_pool_larger_than_the_cluster_works_with_what_there_is(cores: None) -> None:
    names = [str(n) for n in range(12)]
    assert asked("", *names, most=9) == [f * n for f in (2, 3) for n in range(12)]


@pytest.mark.parametrize(
    ("argument", "names", "error", "message"),
    [
        ("", ["1", "bad", "2"], ConfigError, "^bad is bad$"),
        ("cannot be made", ["1"], ConfigError, "^this worker cannot be made$"),
        pytest.param(
            "",
            ["1", "deadly"],
            WorkerError,
            r"workers kept failing at deadly .*task_retries",
            marks=pytest.mark.slow,
        ),
        (
            "",
            ["slow"],
            WorkerError,
            r"no worker has answered for 2 s, waiting for (slow|a worker to start); ",
        ),
    ],
)
def test_what_goes_wrong_in_a_pool_is_told_as_it_was(
    cores: None, argument: str, names: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        asked(argument, *names, stalled_after_s=2.0 if "slow" in names else HANGS_S)


@dataclass(frozen=True)
class Job:
    """What the driver that is killed works on."""

    corpus: Path
    ingested: str
    root: str


def die_in_the_sixth_step(job: Job) -> None:
    """A driver on a Ray of its own that waits to be killed once five updates are stored."""
    from support.one_process import context_of

    from gmp_atl_dist.store.artifact import find_artifact, list_artifacts

    stored = context_of(Path(job.ingested), job.corpus)
    (key,) = (key for key in list_artifacts(stored.store) if key.kind == "ingest")
    corpus = find_artifact(stored.store, key)
    assert corpus is not None
    tiny = Tiny(job.corpus, stored, corpus, corpus)
    make = LayerFit._assign_frames

    def watched(self, pool):
        assign_frames = make(self, pool)
        steps = []

        def watched_step(requests):
            steps.append(None)
            if len(steps) == DIED_AT + 1:
                (Path(job.root) / "sixth-step").touch()
                time.sleep(120)
            return assign_frames(requests)

        return watched_step

    LayerFit._assign_frames = watched
    cluster._ONE_PROCESS_FLOP = 0.0
    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=100 << 20)
    fitted(tiny, Path(job.root), workers=2)


if __name__ == "__main__":
    die_in_the_sixth_step(Job(Path(sys.argv[1]), *sys.argv[2:]))
