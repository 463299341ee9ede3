"""Parts 8 and 9: a whole run through Ray with a GPU, and everything with ``gpus = 0`` beside one.

Part 9 asks workers of every kind what they compute on, and watches the memory of the card during a run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from benchmarks.harness.gpu import Place
from benchmarks.harness.local_ray import local_ray
from benchmarks.harness.machine import usable_cores
from benchmarks.harness.parts import Rows
from benchmarks.harness.rounds import MeasurementError
from benchmarks.inputs.small_run import CONFIG, small_run
from gmp_atl_dist import runtime
from gmp_atl_dist.config import StreamWorkersConfig, TrainWorkersConfig, WorkersConfig
from gmp_atl_dist.corpora.synth import write_synthetic_corpus
from gmp_atl_dist.runtime import Gang, Task
from gmp_atl_dist.store.filesystem import Store

_REPOSITORY = Path(__file__).resolve().parents[2]
_SECTIONS = ("extract", "train")
_MEMORY_EVERY_S = 1.0
_RUN_SHARE = 0.8
"""Of a part's time: a run that takes longer is stopped, which takes a while."""
_UNTOUCHED_MIB = 64.0
"""A CUDA context takes more; what the display of a machine does in a minute takes less."""


def measure_demo(place: Place, rows: Rows) -> None:
    """The demo with one GPU in ``extract`` and ``train``; on a CPU a smaller run without."""
    with tempfile.TemporaryDirectory(prefix="gmp-atl-bench-") as name:
        if place.on_gpu:
            config = _REPOSITORY / "configs" / "demo.toml"
            write_synthetic_corpus(Path(name) / "corpus")
            settings = [f"runtime.corpus={name}/corpus", f"runtime.root={name}/root"]
            for section in _SECTIONS:
                settings += [f"runtime.{section}.gpus=1", f"runtime.{section}.workers=1"]
        else:
            config, settings = CONFIG, small_run(name)
        with _card_memory() as used:
            seconds = _run(config, settings, Path(name), _RUN_SHARE * place.seconds)
        gpus = int(place.on_gpu)
        rows.add(f"a run through Ray with gpus = {gpus}", seconds, "s", key="demo_s")
        for metric, value in _scores(Path(name) / "root").items():
            rows.add(f"its {metric}, of no meaning beside that it was computed", value)
        if place.on_gpu:
            taken = used()
            rows.add("memory that the run took of the card", taken, "MiB", note=_by(taken))
            if taken is not None and taken < _UNTOUCHED_MIB:
                raise MeasurementError(
                    "the run asked for a GPU, and no memory of the card was used"
                )


def measure_hidden(place: Place, rows: Rows) -> None:
    """Workers of every kind with ``gpus = 0`` compute on the CPU, whatever the machine has."""
    gpus = int(place.on_gpu)
    with local_ray(cores=max(4, usable_cores()), gpus=gpus):
        expected = {0: "cpu"} | ({1: "cuda"} if gpus else {})
        for number, kind in expected.items():
            answers = _asked(number)
            wrong = {who: answer for who, answer in answers.items() if answer != kind}
            rows.add(
                f"workers with gpus = {number} that compute on {kind}",
                (len(answers) - len(wrong)) / len(answers),
                key="hidden_ok" if number == 0 else "",
                goal="1",
                note="; ".join(f"{who}: {answer}" for who, answer in answers.items()),
            )
            if wrong:
                raise MeasurementError(f"with gpus = {number} these compute elsewhere: {wrong}")
    if not place.on_gpu:
        return
    with tempfile.TemporaryDirectory(prefix="gmp-atl-bench-") as name, _card_memory() as used:
        seconds = _run(CONFIG, small_run(name), Path(name), _RUN_SHARE * place.seconds)
        rows.add("a run through Ray with gpus = 0", seconds, "s")
        taken, goal = used(), f"< {_UNTOUCHED_MIB:g}"
        rows.add("memory that it took of the card", taken, "MiB", goal=goal, note=_by(taken))
        if taken is not None and taken >= _UNTOUCHED_MIB:
            raise MeasurementError(
                f"gpus = 0 everywhere, and {taken:.0f} MiB of the card were used"
            )


def _asked(gpus: int) -> dict[str, str]:
    """What a worker of each kind says that it computes on."""
    tasks = [Task("one"), Task("two")]
    answers: dict[str, str] = {}
    mapped = runtime.map_tasks(tasks, _Asked, None, workers=WorkersConfig(gpus=gpus), retries=0)
    answers["map_tasks"] = _one({json.loads(r.result)[0]["name"] for r in mapped})
    streams = StreamWorkersConfig(gpus=gpus)
    streamed = runtime.stream_tasks(tasks, _Nothing, _Asked, None, workers=streams, retries=0)
    answers["stream_tasks"] = _one({json.loads(r.result)[0]["name"] for r in streamed})
    with runtime.open_pool(
        _Asked, None, workers=WorkersConfig(gpus=gpus), most=1, retries=0, stalled_after_s=300
    ) as pool:
        found = pool.ask(tasks, "device")
        answers["open_pool"] = _one({json.loads(str(answer))[0]["name"] for answer in found})
    with tempfile.TemporaryDirectory(prefix="gmp-atl-bench-") as folder:
        config = TrainWorkersConfig(workers=1, gpus=gpus, max_failures=0)
        runtime.train(_tell, folder, name="asked", store=Store.open(folder), config=config)
        answers["train"] = (Path(folder) / "device").read_text()
    return answers


def _one(found: set[str]) -> str:
    return " and ".join(sorted(found))


def _device() -> str:
    from gmp_atl_dist.device import accelerator

    return accelerator()


class _Asked:
    """A worker of every kind whose result names its device."""

    def __init__(self, _: object) -> None:
        self._receipt = json.dumps([{"name": _device(), "rows": 1, "audio_s": 0.0}])

    def __call__(self, task: Task, request: object = None) -> str:
        return self._receipt

    def compute(self, task: Task, table: pa.Table) -> Callable[[], str]:
        return lambda: self._receipt


class _Nothing:
    def __call__(self, task: Task) -> pa.Table:
        return pa.table({"nothing": [0]})


def _tell(folder: str, gang: Gang) -> None:
    (Path(folder) / "device").write_text(_device())


def _run(config: Path, settings: Sequence[str], folder: Path, limit_s: float) -> float:
    """Seconds of a run on a private Ray.

    Raises:
        MeasurementError: it failed, or took too long; with the end of its output.
    """
    words = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-m", "ray_jobs.local", "--config", str(config), *words]
    log = folder / "run.log"
    started_s = time.monotonic()
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=_REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            # Its Ray ends with it; killed, it would leave it behind.
            process.terminate()
            code = process.wait()
    if code:
        end = log.read_text(errors="replace")[-1500:]
        raise MeasurementError(f"{end}\nthe run ended with {code} ({Path(config).name})")
    return time.monotonic() - started_s


def _scores(root: Path) -> dict[str, float]:
    """UAR and WAR of the report below ``root``; empty if there is none."""
    for path in sorted(root.rglob("report.json")):
        pooled = json.loads(path.read_text())["pooled"]
        return {name: float(pooled[name]["mean"]) for name in ("uar", "war")}
    return {}


def _by(taken: float | None) -> str:
    return "nvidia-smi does not answer" if taken is None else ""


@contextmanager
def _card_memory() -> Iterator[Callable[[], float | None]]:
    """How many MiB more of the first card were used meanwhile than before, at most; None if unknown."""
    before = _used_mib()
    most: list[float] = []
    done = threading.Event()

    def sample() -> None:
        while not done.wait(_MEMORY_EVERY_S):
            now = _used_mib()
            most.extend([] if now is None else [now])

    thread = threading.Thread(target=sample, name="card-memory", daemon=True)
    thread.start()
    try:
        yield lambda: None if before is None or not most else max(most) - before
    finally:
        done.set()
        thread.join()


def _used_mib() -> float | None:
    """None where there is no driver to ask."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = asked.stdout.split()
    return float(lines[0]) if asked.returncode == 0 and lines and lines[0].isdigit() else None
