"""One run of the whole pipeline that is disturbed at random, on nodes of this machine and a real S3 server.

The seed decides which fault comes when. What a fault meets depends on how far the run is by then, so a seed
repeats the scenario and not every instruction.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from benchmarks.harness.fault_proxy import FaultProxy
from benchmarks.subjects.fault_results import Result, compare, results_of
from tests.support.s3_server import S3Server, running_s3_server

CONFIG = Path(__file__).parents[1] / "inputs" / "fault_run.toml"
NODES = 3
_CORES = 2
_MAPPED = ("MapProcess", "ComputeProcess", "ReadProcess", "MapWorker", "_MapWorker")
_KMEANS = ("PoolProcess",)
_TRAINING = ("RayTrainWorker",)
_MOST_ATTEMPTS = 30
_POLL_S = 0.1
_SHOWN_BYTES = 3000
DEFECTS = (1, 2, 3, 6)
"""Exit codes that no fault explains: a traceback, or a complaint about the configuration or the corpus."""


@dataclass
class Outcome:
    """What became of a run.

    Attributes:
        seed: of its faults.
        faults: that were made, in order, each with the second after the start.
        attempts: how often the command was given.
        exit_codes: of the attempts, in order.
        wall_s: from the first attempt to the last exit.
        finished: the last attempt ended with 0 within the time.
        different: artefacts that are not those of the undisturbed run, in words.
        put_again: parts that were stored more than once.
        log: the end of the output of the last attempt, if it did not finish.
    """

    seed: int
    faults: list[str] = field(default_factory=list)
    attempts: int = 0
    exit_codes: list[int] = field(default_factory=list)
    wall_s: float = 0.0
    finished: bool = False
    different: list[str] = field(default_factory=list)
    put_again: int = 0
    log: str = ""


def undisturbed(corpus: str) -> tuple[Result, float]:
    """The results of the run without a fault, on the same nodes and server, and its seconds."""
    with _stage(corpus) as stage:
        started_s = time.monotonic()
        driver = stage.start_driver()
        code = driver.wait()
        if code:
            raise RuntimeError(f"the undisturbed run ended with {code}:\n{stage.log_end()}")
        return results_of(stage.root), time.monotonic() - started_s


def disturbed(
    corpus: str, seed: int, expected: Result, every_s: float, most_faults: int, limit_s: float
) -> Outcome:
    """Run until the command ends with 0; it is given again after every other end.

    Args:
        corpus: folder of the synthetic corpus.
        seed: of the faults.
        expected: what the undisturbed run made.
        every_s: mean seconds between faults.
        most_faults: after these the run is left alone.
        limit_s: after this time the run counts as hanging.
    """
    rng, outcome = random.Random(seed), Outcome(seed)
    with _stage(corpus) as stage:
        started_s = time.monotonic()
        next_fault_s = started_s + rng.uniform(0.5, 1.5) * every_s
        while time.monotonic() - started_s < limit_s:
            if not stage.drivers:
                if outcome.exit_codes and outcome.exit_codes[-1] == 0:
                    outcome.finished = True
                    break
                if outcome.attempts == _MOST_ATTEMPTS:
                    break
                outcome.attempts += 1
                stage.start_driver()
            time.sleep(_POLL_S)
            for driver in [d for d in stage.drivers if d.poll() is not None]:
                stage.drivers.remove(driver)
                outcome.exit_codes.append(driver.returncode)
            if len(outcome.faults) < most_faults and time.monotonic() >= next_fault_s:
                name = rng.choice(sorted(FAULTS))
                if FAULTS[name](stage, rng):
                    outcome.faults.append(f"{time.monotonic() - started_s:.0f} s {name}")
                next_fault_s = time.monotonic() + rng.uniform(0.5, 1.5) * every_s
        outcome.wall_s = time.monotonic() - started_s
        outcome.put_again = _put_again(stage.proxy.puts)
        if not outcome.finished or any(code in DEFECTS for code in outcome.exit_codes):
            outcome.log = stage.log_end()
        stage.proxy.heal()
        if outcome.finished:
            outcome.different = compare(expected, results_of(stage.root))
    return outcome


def _put_again(puts: Counter[str]) -> int:
    parts = [n for path, n in puts.items() if "/artifacts/" in path and "/parts/" in path]
    return sum(n - 1 for n in parts)


class _Stage:
    """What a run needs: nodes, server, proxy, and the drivers that run."""

    def __init__(self, corpus: str, server: S3Server, proxy: FaultProxy, folder: Path) -> None:
        self.server, self.proxy = server, proxy
        self.root = server.new_uri()
        self.drivers: list[subprocess.Popen[bytes]] = []
        self._corpus, self._folder = corpus, folder
        self._log = folder / "driver.log"
        self._timers: list[threading.Timer] = []
        self.start_nodes()

    def start_nodes(self) -> None:
        """A head without cores, and nodes."""
        from ray.cluster_utils import Cluster

        noticed = {"health_check_failure_threshold": 3, "health_check_period_ms": 500}
        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "include_dashboard": False,
                "_system_config": {**noticed, "prestart_worker_first_driver": False},
            },
        )
        for _ in range(NODES):
            self.cluster.add_node(wait=False, num_cpus=_CORES)
        self.cluster.wait_for_nodes()

    def start_driver(self) -> subprocess.Popen[bytes]:
        settings = [f"runtime.corpus={self._corpus}", f"runtime.ray_address={self.cluster.address}"]
        options = [word for setting in settings for word in ("--set", setting)]
        with self._log.open("ab") as log:
            driver = subprocess.Popen(
                [
                    *(sys.executable, "-m", "gmp_atl_dist.cli", "run", "--config", str(CONFIG)),
                    *("--root", self.root, *options),
                ],
                env={k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.drivers.append(driver)
        return driver

    def workers(self, names: Sequence[str]) -> list[psutil.Process]:
        """Living workers of this stage's nodes whose title has one of ``names``; those of no other Ray."""
        found: list[psutil.Process] = []
        for process in self._ray_processes():
            with suppress(psutil.Error):
                title = " ".join(process.cmdline())
                if title.startswith("ray::") and any(name in title for name in names):
                    found.append(process)
        return sorted(found, key=lambda p: p.pid)

    def kill_head(self) -> None:
        """All of Ray dies at once, and starts again elsewhere."""
        self._kill_ray()
        self.start_nodes()

    def later(self, after_s: float, heal: Callable[[], object]) -> None:
        timer = threading.Timer(after_s, heal)
        timer.daemon = True
        timer.start()
        self._timers.append(timer)

    def log_end(self) -> str:
        data = self._log.read_bytes() if self._log.exists() else b""
        return data[-_SHOWN_BYTES:].decode(errors="replace")

    def close(self) -> None:
        for timer in self._timers:
            timer.cancel()
        for driver in self.drivers:
            with suppress(ProcessLookupError):
                os.killpg(driver.pid, signal.SIGKILL)
            driver.wait()
        self._kill_ray()

    def _ray_processes(self) -> list[psutil.Process]:
        roots = [
            info.process.pid
            for node in [self.cluster.head_node, *self.cluster.worker_nodes]
            if node is not None
            for infos in node.all_processes.values()
            for info in infos
        ]
        found: dict[int, psutil.Process] = {}
        for pid in roots:
            with suppress(psutil.Error):
                root = psutil.Process(pid)
                found |= {p.pid: p for p in [root, *root.children(recursive=True)]}
        return list(found.values())

    def _kill_ray(self) -> None:
        for process in self._ray_processes():
            with suppress(psutil.Error):
                process.kill()
        with suppress(Exception):  # it finds its processes dead already
            self.cluster.shutdown()


@contextmanager
def _stage(corpus: str) -> Iterator[_Stage]:
    with tempfile.TemporaryDirectory(prefix="gmp-atl-faults-") as name:
        folder = Path(name)
        with running_s3_server(folder / "s3") as server:
            direct = os.environ["AWS_ENDPOINT_URL"]
            proxy = FaultProxy(urlsplit(server.endpoint).port or 0)
            os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint
            stage = _Stage(corpus, server, proxy, folder)
            try:
                yield stage
            finally:
                stage.close()
                proxy.close()
                os.environ["AWS_ENDPOINT_URL"] = direct


Fault = Callable[[_Stage, random.Random], bool]
"""Makes a fault now; whether there was anything that it could meet."""


def _kill_worker(names: Sequence[str], stage: _Stage, rng: random.Random) -> bool:
    found = stage.workers(names)
    if found:
        with suppress(psutil.Error):
            rng.choice(found).kill()
    return bool(found)


def _lose_node(stage: _Stage, rng: random.Random) -> bool:
    nodes = stage.cluster.worker_nodes
    node = rng.choice(sorted(nodes, key=lambda n: n.node_id or ""))
    stage.cluster.remove_node(node, allow_graceful=False)
    stage.cluster.add_node(wait=False, num_cpus=_CORES)
    return True


def _lose_head(stage: _Stage, rng: random.Random) -> bool:
    stage.kill_head()
    return True


def _signal_driver(signum: signal.Signals, stage: _Stage, rng: random.Random) -> bool:
    running = [d for d in stage.drivers if d.poll() is None]
    if running:
        running[0].send_signal(signum)
    return bool(running)


def _second_driver(stage: _Stage, rng: random.Random) -> bool:
    if len(stage.drivers) != 1:
        return False
    stage.start_driver()
    return True


def _restart_store(stage: _Stage, rng: random.Random) -> bool:
    stage.server.kill()
    stage.later(rng.uniform(0.5, 3.0), stage.server.start)
    return True


def _set(name: str, value: object, most_s: float, stage: _Stage, rng: random.Random) -> bool:
    """Set an attribute of the proxy for a while."""
    setattr(stage.proxy, name, value)
    stage.later(rng.uniform(0.3, 1.0) * most_s, stage.proxy.heal)
    return True


def _cut(stage: _Stage, rng: random.Random) -> bool:
    stage.proxy.cut()
    return True


FAULTS: dict[str, Fault] = {
    "SIGKILL of a worker of a mapped stage": partial(_kill_worker, _MAPPED),
    "SIGKILL of a k-means worker": partial(_kill_worker, _KMEANS),
    "SIGKILL of a training rank": partial(_kill_worker, _TRAINING),
    "loss of a node": _lose_node,
    "loss of the head": _lose_head,
    "SIGKILL of the driver": partial(_signal_driver, signal.SIGKILL),
    "SIGTERM of the driver": partial(_signal_driver, signal.SIGTERM),
    "a second driver": _second_driver,
    "SIGKILL and restart of the store": _restart_store,
    "reset of every connection to the store": _cut,
    "reset in the middle of an upload": partial(_set, "reset_after_bytes", 20_000, 3.0),
    "storm of 503": partial(_set, "answer", 503, 4.0),
    "refused credentials": partial(_set, "answer", 403, 2.0),
    "latency of a second": partial(_set, "latency_s", 1.0, 5.0),
    "black hole": partial(_set, "blackhole", True, 6.0),
    "store that refuses connections": partial(_set, "refuse", True, 4.0),
}
