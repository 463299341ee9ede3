"""What a disturbed run needs: nodes of this machine, a real S3 server behind a proxy, and its drivers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from benchmarks.harness.fault_proxy import FaultProxy
from tests.support.s3_server import S3Server, running_s3_server

CONFIG = Path(__file__).parents[1] / "inputs" / "fault_run.toml"
NODES = 3
CORES = 2
_SHOWN_BYTES = 3000
_COMMAND_S = 300.0
_LATE_CLOCK = """
import runpy, time
time.time = lambda: time.clock_gettime(time.CLOCK_REALTIME) - {late_s}
time.time_ns = lambda: time.clock_gettime_ns(time.CLOCK_REALTIME) - int({late_s} * 1e9)
runpy.run_module("gmp_atl_dist.cli", run_name="__main__", alter_sys=True)
"""
"""The clock of Python's ``time``, by which records and leases are dated. boto3 signs by ``datetime``."""


class Driver(subprocess.Popen[bytes]):
    """A process that runs the pipeline, and the file with its output."""

    log: Path

    def log_end(self) -> str:
        return self.log.read_bytes()[-_SHOWN_BYTES:].decode(errors="replace")


class Stage:
    """What a run needs: nodes, server, proxy, and the drivers that run."""

    def __init__(self, corpus: str, server: S3Server, proxy: FaultProxy, folder: Path) -> None:
        self.server, self.proxy = server, proxy
        self.root = server.new_uri()
        self.drivers: list[Driver] = []
        self.damaged: list[str] = []
        """Objects that were damaged and not found yet."""
        self.late_s = 0.0
        """By which the clock of the next driver is late."""
        self._corpus, self._folder = corpus, folder
        self._log = folder / "commands.log"
        self._logs: list[Path] = []
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
            self.cluster.add_node(wait=False, num_cpus=CORES)
        self.cluster.wait_for_nodes()

    def start_driver(self) -> Driver:
        settings = [f"runtime.corpus={self._corpus}", f"runtime.ray_address={self.cluster.address}"]
        options = [word for setting in settings for word in ("--set", setting)]
        program = [sys.executable, "-m", "gmp_atl_dist.cli"]
        if self.late_s:
            program[1:] = ["-c", _LATE_CLOCK.format(late_s=self.late_s)]
        self._logs.append(self._folder / f"driver-{len(self._logs) + 1}.log")
        with self._logs[-1].open("wb") as log:
            driver = Driver(
                [*program, "run", "--config", str(CONFIG), "--root", self.root, *options],
                env={k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.late_s = 0.0
        driver.log = self._logs[-1]
        self.drivers.append(driver)
        return driver

    def gmp_atl(self, *words: str) -> int:
        """The exit code of a command on the root."""
        with self._log.open("ab") as log:
            return subprocess.run(
                [sys.executable, "-m", "gmp_atl_dist.cli", *words, "--root", self.root],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=_COMMAND_S,
                check=False,
            ).returncode

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
        """Of the last driver."""
        return self._logs[-1].read_bytes()[-_SHOWN_BYTES:].decode(errors="replace")

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
def new_stage(corpus: str) -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="gmp-atl-faults-") as name:
        folder = Path(name)
        with running_s3_server(folder / "s3") as server:
            direct = os.environ["AWS_ENDPOINT_URL"]
            proxy = FaultProxy(urlsplit(server.endpoint).port or 0)
            os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint
            stage = Stage(corpus, server, proxy, folder)
            try:
                yield stage
            finally:
                stage.close()
                proxy.close()
                os.environ["AWS_ENDPOINT_URL"] = direct
