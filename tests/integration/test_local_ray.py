"""The launcher that runs a job on a private Ray head."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.terminal import on_a_terminal

from ray_jobs import local

pytestmark = pytest.mark.timeout(3600)

REPOSITORY = Path(__file__).resolve().parents[2]

JOB = """
import os, pathlib, stat, subprocess, sys, ray
ray.init()

@ray.remote
def where():
    return os.getcwd(), os.environ["AWS_PROBE"]

assert ray.get(where.remote(), timeout=1800) == (os.getcwd(), "inherited")
# Left behind in a session of its own: the launcher ends it as well.
subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True)
# Ray opens its own folder to everybody. Only this user may enter the one above.
folder = pathlib.Path(os.environ["GMP_ATL_LOCAL_RAY"])
assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700, oct(folder.parent.stat().st_mode)
pathlib.Path(sys.argv[1]).write_text("written by the job")
print("the job speaks")
sys.exit(int(sys.argv[2]))
"""

WAITING_JOB = """
import pathlib, signal, sys, time

def save(*_):
    if not stubborn:
        time.sleep(5)  # longer than Ray waits by default
        pathlib.Path("saved").write_text("a checkpoint")
        sys.exit(143)

stubborn = "stubborn" in sys.argv
signal.signal(signal.SIGTERM, save)
pathlib.Path(sys.argv[1]).write_text("running")
while True:
    signal.pause()
"""


OWNER = "GMP_ATL_TEST_OWNER"
# Inherited by every launcher and head of this process. Another process may run jobs at the same time.
os.environ[OWNER] = secrets.token_hex(8)


def marked() -> list[psutil.Process]:
    """Processes of heads that a launcher of this test's environment started."""
    return [
        p
        for p in psutil.process_iter()
        if local._mark_of(p) is not None and _is_ours(p) and p.status() != psutil.STATUS_ZOMBIE
    ]


def _is_ours(process: psutil.Process) -> bool:
    try:
        return process.environ().get(OWNER) == os.environ[OWNER]
    except (psutil.Error, OSError):
        return False


@pytest.fixture
def decoy() -> Iterator[subprocess.Popen[bytes]]:
    """A process that code which kills by name would take for Ray's."""
    process = subprocess.Popen(
        [sys.executable, "-c", "import signal; signal.pause()", "raylet", "gcs_server"]
    )
    yield process
    process.kill()
    process.wait()


@pytest.fixture(autouse=True)
def in_a_folder_with_a_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "a folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.slow
def test_a_job_runs_where_the_caller_is_and_leaves_nothing(
    in_a_folder_with_a_space: Path,
    decoy: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    script = in_a_folder_with_a_space / "job.py"
    script.write_text(JOB)
    monkeypatch.setenv("AWS_PROBE", "inherited")
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:1")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of another cluster")
    before = {p.pid for p in marked()}

    code = local.run_job(Path("job.py"), ["out $HOME.txt", "3"])

    assert code == 3
    assert (in_a_folder_with_a_space / "out $HOME.txt").read_text() == "written by the job"
    assert capfd.readouterr().out.count("the job speaks") == 1
    assert {p.pid for p in marked()} <= before
    assert decoy.poll() is None


LAUNCH = "import signal, sys; from pathlib import Path; from ray_jobs import local; "
# A shell's background jobs ignore these, and so do their children unless told.
LAUNCH += "signal.signal(signal.SIGINT, signal.default_int_handler); "
LAUNCH += "signal.signal(signal.SIGHUP, signal.SIG_DFL); "
LAUNCH += "sys.exit(local.main(Path('job.py'), sys.argv[1:]))"


@pytest.mark.faults
@pytest.mark.parametrize(
    "signum",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.nightly),
        pytest.param(signal.SIGHUP, marks=pytest.mark.nightly),
    ],
    ids=lambda s: s.name,
)
def test_a_launcher_that_is_told_to_stop_takes_its_ray_along(
    in_a_folder_with_a_space: Path, decoy: subprocess.Popen[bytes], signum: signal.Signals
) -> None:
    (in_a_folder_with_a_space / "job.py").write_text(WAITING_JOB)
    before = {p.pid for p in marked()}
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, "started"],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 1800
    while not Path("started").exists() and time.monotonic() < deadline:
        assert launcher.poll() is None
        time.sleep(0.1)
    assert {p.pid for p in marked()} - before

    launcher.send_signal(signum)

    _, told = launcher.communicate(timeout=1800)
    assert launcher.returncode == 128 + signum
    assert b"stopping" in told
    assert b": the job saves a checkpoint; press Ctrl-C again to end at once" in told
    assert Path("saved").read_text() == "a checkpoint"
    assert {p.pid for p in marked()} <= before
    assert decoy.poll() is None


@pytest.mark.faults
def test_a_second_ctrl_c_does_not_wait_for_the_job(in_a_folder_with_a_space: Path) -> None:
    (in_a_folder_with_a_space / "job.py").write_text(WAITING_JOB)
    before = {p.pid for p in marked()}
    started = in_a_folder_with_a_space / "started"
    env = {"PYTHONPATH": str(REPOSITORY)}
    launch = LAUNCH.replace("'job.py'", repr(str(in_a_folder_with_a_space / "job.py")))
    with on_a_terminal("-c", launch, str(started), "stubborn", env=env) as terminal:
        terminal.until(started.exists, "the job", 1800)
        terminal.press_ctrl_c()
        terminal.until(lambda: terminal.shown_at("stopping: the job saves"), "the line", 60)
        time.sleep(1)
        assert terminal.process.poll() is None
        terminal.press_ctrl_c()
        assert terminal.wait(30) == 130
    assert {p.pid for p in marked()} <= before
