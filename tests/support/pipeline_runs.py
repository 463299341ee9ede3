"""Real runs of the command line: started, watched, killed, compared.

Each is a process in a session of its own on a local Ray, which lets the tests see and end all that
belongs to it and nothing else. Test modules get the fixtures by ``pytest_plugins =
["support.pipeline_runs"]``. They import it before pytest could rewrite its assertions, and it has none:
PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from gmp_atl_dist.corpora.synth import write_synthetic_corpus
from gmp_atl_dist.store.layout import LAYOUT_PATH
from gmp_atl_dist.store.runs import RECORD_NAME

T = TypeVar("T")

RUN_S = 1080.0
"""Of a whole run that hangs; alone on two cores one takes about a tenth of it."""
STAGE_S = 480.0
GONE_S = 180.0
_AGENTS_GONE_S = 300.0
_AGENTS = ("DashboardAgent", "RuntimeEnvAgent", "dashboard/agent.py", "runtime_env/agent")
_POLL_S = 0.03

RETRAIN_STEPS = 40
CONFIG = f"""
[corpus]
part_audio_s = 7

[folds]
run = [1]

[model]
source = "random:tiny"

[warmup]
epochs = 1
batch_s = 20
freeze_conv = false

[extract]
layers = [1, 2]
part_frames = 350

[cluster]
scales = [{{ layer = 1, k = 8 }}, {{ layer = 2, k = 8 }}]
sample_frames = 2000

[retrain]
steps = {RETRAIN_STEPS}
batch_s = 20

[finetune]
epochs = 1
batch_s = 20
freeze_conv = false
embedding_dim = 16

[evaluate]
bootstrap_samples = 200

[runtime]
corpus = "CORPUS"

[runtime.extract]
workers = 2

[runtime.cluster]
workers = 2

[runtime.label]
workers = 2

[runtime.train]
workers = 2
checkpoint_every_steps = 10
"""


class CliRun:
    """A command under way. Its output goes to a file, which failures show the end of."""

    def __init__(self, arguments: tuple[str, ...], log: Path) -> None:
        self._what = f"gmp-atl {' '.join(arguments)}"
        self._log = log
        environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gmp_atl_dist.cli", *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def fail(self, why: str) -> None:
        pytest.fail(f"{self._what}: {why}; it said:\n{self.output[-6000:]}", pytrace=False)

    def family(self) -> list[psutil.Process]:
        """All that lives in its session: the driver, Ray's own processes, the workers."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                mine = os.getsid(process.pid) == self.process.pid
                if mine and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def workers(self, name: str) -> list[psutil.Process]:
        """Ray's worker processes whose title tells that they are ``name``."""
        found: list[psutil.Process] = []
        for process in self.family():
            with suppress(psutil.NoSuchProcess):
                if any(word.startswith(f"ray::{name}") for word in process.cmdline()):
                    found.append(process)
        return found

    def wait(self, limit_s: float) -> int:
        """Its exit code."""
        try:
            return self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.fail(f"not done after {limit_s:g} s")
            raise

    def until(self, condition: Callable[[], T | None], what: str, limit_s: float = STAGE_S) -> T:
        """The first value of ``condition`` that is not None or False, while it runs."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            value = condition()
            if value:
                return value
            if self.process.poll() is not None:
                self.fail(f"ended with {self.process.returncode} before {what}")
            time.sleep(_POLL_S)
        self.fail(f"no sign of {what} after {limit_s:g} s")
        raise TimeoutError

    def kill_driver(self) -> None:
        """SIGKILL it, and only it; all of its Ray that could still work must go away by itself.

        Ray's two agents stay a minute longer, in which they try to tell the dead driver that its
        Ray is dead; see ``wait_until_gone``.
        """
        self.process.kill()
        self.process.wait()
        self._wait_until_gone(GONE_S, but=_AGENTS)

    def wait_until_gone(self) -> None:
        """After ``kill_driver``: until nothing at all of its session lives."""
        self._wait_until_gone(_AGENTS_GONE_S, but=())

    def _wait_until_gone(self, limit_s: float, but: tuple[str, ...]) -> None:
        deadline = time.monotonic() + limit_s
        while True:
            commands: list[str] = []
            for process in self.family():
                with suppress(psutil.NoSuchProcess):
                    commands.append(" ".join(process.cmdline()).strip())
            left = [c for c in commands if not any(name in c for name in but)]
            if not left:
                return
            if time.monotonic() > deadline:
                self.fail(f"killed {limit_s:g} s ago, and these still run: {left}")
            time.sleep(0.1)

    def end(self) -> None:
        """The last resort: SIGKILL whatever is left of its session."""
        self.process.kill()
        for process in self.family():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()


@contextmanager
def started(*arguments: str, log: Path) -> Iterator[CliRun]:
    run = CliRun(arguments, log)
    try:
        yield run
    finally:
        run.end()


def finished(*arguments: str, log: Path, code: int = 0, limit_s: float = STAGE_S) -> str:
    """What a command says that ends with exit code ``code``."""
    with started(*arguments, log=log) as run:
        found = run.wait(limit_s)
        if found != code:
            run.fail(f"exit code {found}, expected {code}")
        return run.output


@dataclass(frozen=True)
class Root:
    """A folder of artefacts, one of each kind, read without the package."""

    folder: Path

    def copy_to(self, folder: Path, *kinds: str) -> Root:
        """A new root with these kinds of artefacts, or with everything."""
        if not kinds:
            shutil.copytree(self.folder, folder)
        for kind in kinds:
            shutil.copytree(self.folder / "artifacts" / kind, folder / "artifacts" / kind)
        # Without it the copy counts as a root of release 0.1.
        shutil.copyfile(self.folder / LAYOUT_PATH, folder / LAYOUT_PATH)
        return Root(folder)

    def files(self, *kinds: str) -> list[Path]:
        """Every file of these kinds of artefacts."""
        below = [path for kind in kinds for path in (self.folder / "artifacts" / kind).rglob("*")]
        return [path for path in below if path.is_file()]

    def artifact(self, kind: str) -> Path:
        (folder,) = (self.folder / "artifacts" / kind).iterdir()
        return folder

    def is_sealed(self, kind: str) -> bool:
        return (self.artifact(kind) / "_manifest.json").exists()

    def hashes(self, kind: str) -> dict[str, str]:
        """sha256 of every object by its name, from the manifest."""
        manifest = json.loads((self.artifact(kind) / "_manifest.json").read_text())
        return {receipt["name"]: receipt["sha256"] for receipt in manifest["receipts"]}

    def objects(self, kind: str) -> dict[str, bytes]:
        """Every object itself, by the same name."""
        folder = self.artifact(kind)
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for below in ("parts", "files")
            for path in sorted((folder / below).glob("*"))
        }

    def learnt(self, kind: str) -> dict[str, bytes]:
        """What a training produced: weights, configuration, curves; not the account of how."""
        objects = self.objects(kind)
        del objects["files/training.json"]
        return objects

    def resumed_at(self, kind: str) -> list[int]:
        return json.loads(self.objects(kind)["files/training.json"])["resumed_at"]

    def receipts(self, kind: str) -> list[Path]:
        """Receipts of parts; none while the stage has not started."""
        return sorted((self.folder / "artifacts" / kind).glob("*/receipts/parts/*.json"))

    def state(self) -> list[tuple[str, int, int]]:
        """(path, size, time of change) of every file but records, which get an attempt for each start."""
        return sorted(
            (str(p.relative_to(self.folder)), p.stat().st_size, p.stat().st_mtime_ns)
            for p in self.folder.rglob("*")
            if p.is_file() and p.name != RECORD_NAME
        )

    def checkpoint_steps(self, kind: str) -> list[int]:
        """Updates after which a complete checkpoint of this stage's training was recorded, newest first."""
        found: list[int] = []
        for folder in (self.folder / "artifacts" / kind).glob("*"):
            records = (self.folder / "checkpoints" / folder.name).glob("*/_record.json")
            found += [int(record.parent.name.partition("-")[0]) for record in records]
        return sorted(found, reverse=True)

    def is_beyond_a_checkpoint(self, kind: str) -> bool:
        """Whether updates were taken that the newest checkpoint does not hold."""
        steps = self.checkpoint_steps(kind)
        if not steps:
            return False
        for path in (self.folder / "artifacts" / kind).glob("*/_progress.json"):
            with suppress(OSError, ValueError):
                return json.loads(path.read_text())["done"] > steps[0]
        return False


@dataclass(frozen=True)
class Reference:
    """A run that nothing disturbed, which the others are compared with."""

    config: Path
    corpus: Path
    root: Root
    output: str

    def command(self, *words: str, root: Root | str) -> tuple[str, ...]:
        place = root if isinstance(root, str) else str(root.folder)
        return (*words, "--config", str(self.config), "--root", place)


@pytest.fixture(scope="session")
def ray_folder() -> Iterator[Path]:
    """Where these runs' Rays keep sockets and logs; a short name, as sockets need one."""
    folder = Path(tempfile.mkdtemp(prefix="gmp-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(folder))
        yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory, ray_folder: Path) -> Reference:
    """All stages of one fold: two workers wherever the configuration has a number of them."""
    folder = tmp_path_factory.mktemp("reference")
    write_synthetic_corpus(folder / "corpus", utterances_per_speaker_and_emotion=2)
    config = folder / "run.toml"
    config.write_text(CONFIG.replace("CORPUS", str(folder / "corpus")))
    new = Reference(config, folder / "corpus", Root(folder / "root"), "")
    output = finished(*new.command("run", root=new.root), log=folder / "log", limit_s=RUN_S)
    return Reference(config, new.corpus, new.root, output)


@dataclass(frozen=True)
class Interrupted:
    """A run whose driver was SIGKILLed amid ``retrain``; what it left, and what is left of it."""

    root: Root
    run: CliRun


@pytest.fixture(scope="session")
def interrupted(
    reference: Reference, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Interrupted]:
    """From ``extract`` on with one worker a mapped stage; its checkpoints are of two workers."""
    folder = tmp_path_factory.mktemp("interrupted")
    root = reference.root.copy_to(folder / "root", "ingest", "backbone", "warmup")
    single = [f"--set=runtime.{stage}.workers=1" for stage in ("extract", "cluster", "label")]
    command = reference.command("run", *single, root=root)
    with started(*command, log=folder / "log") as run:
        run.until(
            lambda: root.is_beyond_a_checkpoint("retrain"), "an update after a checkpoint", RUN_S
        )
        run.kill_driver()
        if root.is_sealed("retrain"):
            run.fail("retrain was done before the kill; raise RETRAIN_STEPS")
        yield Interrupted(root, run)
