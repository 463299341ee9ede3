"""A server of ``gmp-atl serve`` in a process of its own, as a user starts it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
_START_S = 300.0


@dataclass
class Served:
    """A running command, and the lines that it has printed so far."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    url: str = ""

    @property
    def text(self) -> str:
        return "".join(self.lines)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait for a line; fails when the process ends or takes too long."""
        deadline_s = time.monotonic() + _START_S
        while time.monotonic() < deadline_s:
            found = re.search(pattern, self.text)
            if found is not None:
                return found
            assert self.process.poll() is None, self.text
            time.sleep(0.05)
        raise AssertionError(f"{pattern!r} did not come:\n{self.text}")

    def end(self, number: int) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(120)

    def processes(self, name: str = "") -> list[psutil.Process]:
        """The command and all that it started, those whose title contains ``name``."""
        found = []
        tree = psutil.Process(self.process.pid)
        for one in [tree, *tree.children(recursive=True)]:
            try:
                if name in " ".join(one.cmdline()):
                    found.append(one)
            except psutil.Error:
                continue
        return found

    def memory_bytes(self) -> int:
        """Private memory of all its processes."""
        total = 0
        for one in self.processes():
            try:
                total += one.memory_full_info().uss
            except psutil.Error:
                continue
        return total


@contextmanager
def started(*arguments: str, **environment: str) -> Iterator[Served]:
    """``gmp-atl serve ARGUMENTS``; it is killed at the end if it still runs."""
    inherited = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "gmp_atl_dist.cli", "serve", *arguments],
        cwd=REPOSITORY,
        env={**inherited, "PYTHONPATH": str(REPOSITORY), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    served = Served(process)

    def read() -> None:
        assert process.stdout is not None
        served.lines.extend(process.stdout)

    threading.Thread(target=read, daemon=True).start()
    try:
        yield served
    finally:
        if process.poll() is None:
            for one in served.processes()[::-1]:
                one.kill()
            process.wait(30)


@contextmanager
def ready_server(*arguments: str, **environment: str) -> Iterator[Served]:
    """As :func:`started`, when it answers."""
    with started(*arguments, "--port", "0", **environment) as served:
        served.url = served.wait_for(r"ready: (http://\S+?)/ ").group(1)
        yield served
