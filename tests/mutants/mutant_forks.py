"""Runs of pytest in forks of a process that has imported PyTorch and the other libraries.

A fork starts with the libraries and without this package, which it imports from the altered copy. So a run
takes a second of imports, where a new interpreter takes fifteen.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

LIBRARIES = (
    *("torch", "transformers.models.hubert.modeling_hubert", "safetensors.torch", "deepspeed"),
    *("pyarrow.parquet", "pyarrow.dataset", "pandas", "scipy.stats", "sklearn.metrics", "faiss"),
    *("sklearn.cluster", "soundfile", "soxr", "boto3", "ray", "ray.data", "ray.train", "pydantic"),
    *("typer", "rich", "matplotlib.pyplot", "jinja2", "tensorboardX", "cachetools", "hypothesis"),
    *("pytest", "_pytest.assertion.rewrite"),
)
"""What is imported once. None of them starts a thread that a fork would miss."""
_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "DS_ACCELERATOR": "cpu",
    "MKL_CBWR": "AUTO,STRICT",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
}
_MARK = "GMP_ATL_MUTANT"
_HERE = Path(__file__).resolve().parent
_OF_THE_CHECKOUT = ("", *map(str, (_HERE, _HERE.parent, _HERE.parents[1])))
FORK_FAILED = "the fork itself failed"
_ASK_S = 0.02


@dataclass(frozen=True)
class Ended:
    """How a fork ended.

    Attributes:
        result: what the job returned; nothing if it did not get so far.
        timed_out: it was stopped at its limit.
        seconds: wall time.
        log: what it printed, at most the last 20,000 characters.
    """

    result: dict[str, Any] | None
    timed_out: bool
    seconds: float
    log: str


def copy_tree(root: Path, to: Path) -> None:
    """Copy what git knows of ``root``, and what it does not ignore: without its history."""
    command = [
        "git",
        "-C",
        str(root),
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]
    for name in (
        subprocess.run(command, check=True, capture_output=True).stdout.decode().split("\0")
    ):
        source, target = root / name, to / name
        if name and (source.is_file() or source.is_symlink()):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)


class Forks:
    """Runs jobs one after another in forks that see ``copy`` in the place of the checkout.

    Args:
        copy: a copy of the repository, see ``copy_tree``.
        data: folder of the test data, which does not lie beside the copy.
    """

    def __init__(self, copy: Path, data: Path) -> None:
        self.copy = copy
        self._scratch = copy.parent / "scratch"
        os.environ |= _ENVIRONMENT
        os.environ.setdefault("GMP_ATL_TEST_DATA", str(data))
        # Compared by the hash of the source: an alteration within a second keeps size and time.
        command = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash"]
        subprocess.run([*command, str(copy / "gmp_atl_dist")], check=True)
        for name in LIBRARIES:
            importlib.import_module(name)
        ours = [name for name in sys.modules if name.split(".")[0] == "gmp_atl_dist"]
        assert not ours, f"a fork would not import {ours} from the copy"

    def run(self, job: Callable[[], dict[str, Any]], limit_s: float) -> Ended:
        """Run ``job`` in a fork, for at most ``limit_s`` seconds of wall time.

        Whatever it starts is ended with it. Its temporary files are deleted.
        """
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir()
        answer, log = self._scratch / "answer.json", self._scratch / "log"
        mark = uuid.uuid4().hex
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            self._child(job, answer, log, mark)
        timed_out = True
        try:
            timed_out = not _ended(pid, limit_s)
        finally:
            _end_all(pid, mark)
            if timed_out:
                os.waitpid(pid, 0)
        seconds = time.monotonic() - started
        result = None
        if answer.exists() and not timed_out:
            result = json.loads(answer.read_text())
        said = log.read_text(errors="replace")[-20_000:] if log.exists() else ""
        shutil.rmtree(self.copy / ".hypothesis", ignore_errors=True)
        return Ended(result, timed_out, seconds, said)

    def _child(self, job: Callable[[], dict[str, Any]], answer: Path, log: Path, mark: str) -> None:
        try:
            os.setsid()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            sys.stdout, sys.stderr = (
                os.fdopen(1, "w", closefd=False),
                os.fdopen(2, "w", closefd=False),
            )
            sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
            temporary = self._scratch / "tmp"
            temporary.mkdir()
            os.chdir(self.copy)
            os.environ[_MARK] = mark
            os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
            paths = [str(self.copy), str(self.copy / "tests")]
            os.environ["PYTHONPATH"] = os.pathsep.join(paths)
            sys.path[:] = [*paths, *(path for path in sys.path if path not in _OF_THE_CHECKOUT)]
            found = importlib.util.find_spec("gmp_atl_dist")
            if found is None or not str(found.origin).startswith(str(self.copy)):
                raise RuntimeError(f"gmp_atl_dist is {found}, not that of {self.copy}")
            made = json.dumps(job())
            answer.with_suffix(".part").write_text(made)
            answer.with_suffix(".part").rename(answer)
        except BaseException as e:
            print(f"{FORK_FAILED}: {type(e).__name__}: {e}", file=sys.stderr)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            # Nothing of the parent is closed or flushed by it.
            os._exit(0)


def _ended(pid: int, limit_s: float) -> bool:
    until_s = time.monotonic() + limit_s
    while time.monotonic() < until_s:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return True
        time.sleep(_ASK_S)
    return False


def _end_all(pid: int, mark: str) -> None:
    """End the fork and what it has started: its session, and processes that carry its mark."""
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == pid or process.environ().get(_MARK) == mark:
                process.kill()
        except (psutil.Error, OSError):
            continue
