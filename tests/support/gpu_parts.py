"""Parts of a benchmark that go wrong, importable in a process of their own."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from benchmarks.harness.parts import Rows


def fails(rows: Rows) -> None:
    """Measures something, and raises."""
    rows.add("before", 1.0, key="demo_s")
    raise ValueError("no such thing")


def dies(rows: Rows) -> None:
    """Measures something, and is killed as by a lack of memory."""
    rows.add("before", 1.0)
    os.kill(os.getpid(), 9)


def sleeps(pids: Path) -> None:
    """Starts a process, and never ends; notes both in ``pids``."""
    below = subprocess.Popen(["sleep", "600"])
    # At once as a whole: somebody waits for it.
    partial_file = pids.with_suffix(".partial")
    partial_file.write_text(f"{os.getpid()} {below.pid}")
    partial_file.rename(pids)
    time.sleep(600)


def hangs(pids: Path, rows: Rows) -> None:
    """Measures something that is no number, starts a process, and never ends; notes both in ``pids``."""
    rows.add("before", float("nan"))
    below = subprocess.Popen(["sleep", "600"])
    pids.write_text(f"{os.getpid()} {below.pid}")
    time.sleep(600)
