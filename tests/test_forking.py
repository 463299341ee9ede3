"""Worker processes as forks of one that has imported what they import."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from gmp_atl_dist.config import RuntimeConfig
from gmp_atl_dist.runtime.forking import ForkServer
from gmp_atl_dist.scheduling.preloaded import preloaded

TELLS = """
import json, os, signal, sys
told = {
    "argv": sys.argv[1:], "parent": os.getppid(), "group": os.getpgid(0) == os.getpid(),
    "session": os.getsid(0),
    "preloaded": "wave" in sys.modules, "env": dict(os.environ), "cwd": os.getcwd(),
    "path": sys.path[0], "sigchld": signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL,
    "main": __name__, "files": sorted(int(f) for f in os.listdir("/proc/self/fd")),
}
if "numpy" in sys.modules:
    told["drawn"] = sys.modules["numpy"].random.rand()
print(json.dumps(told))
print("to stderr", file=sys.stderr)
"""
GONE_S = 30.0
WORKERS = str(Path(__file__).with_name("support") / "forked_workers.py")


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    server = ForkServer(["wave"], {"ONLY_OF_THE_SERVER": "1"})
    yield server
    server.close()


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "a folder" / "default_worker.py"
    path.parent.mkdir()
    path.write_text(TELLS)
    return path


def start(server: ForkServer, script: Path, env: Mapping[str, str]) -> subprocess.Popen[str]:
    """As Ray does: by a shell that becomes the process."""
    command = f"exec {server.command} '{script}' --one 'two words'"
    return subprocess.Popen(
        ["bash", "-c", command],
        env=env,
        cwd=script.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def told_by(process: subprocess.Popen[str]) -> dict[str, object]:
    out, err = process.communicate(timeout=120)
    assert err.endswith("to stderr\n"), err
    return json.loads(out)


def test_a_fork_is_the_process_that_was_asked_for(server: ForkServer, script: Path) -> None:
    env = {"PATH": os.environ["PATH"], "MINE": "with = and \n"}
    process = start(server, script, env)
    told = told_by(process)

    assert told["parent"] == server.pid != process.pid
    assert told["preloaded"] is True
    assert told["argv"] == ["--one", "two words"]
    asked = told["env"]
    assert isinstance(asked, dict)
    assert asked.items() >= env.items()
    assert "ONLY_OF_THE_SERVER" not in asked
    assert told["cwd"] == told["path"] == str(script.parent)
    assert told["main"] == "__main__"
    # Its own group, which a Ctrl-C of the terminal does not reach; and the session of who started it.
    assert told["group"] is True
    assert told["session"] == os.getsid(0)
    assert told["sigchld"] is True


def test_forks_do_not_draw_the_same_numbers(server: ForkServer, script: Path) -> None:
    first, second = (told_by(start(server, script, os.environ)) for _ in range(2))

    assert first["drawn"] != second["drawn"]


def test_without_a_server_the_process_starts_itself(script: Path) -> None:
    ended = ForkServer(["wave"], {})
    ended.close()

    process = start(ended, script, os.environ)
    told = told_by(process)

    assert told["parent"] == os.getpid()
    assert told["preloaded"] is False
    assert told["argv"] == ["--one", "two words"]
    assert process.returncode == 0


def test_a_server_that_would_fork_a_process_with_ray_ends_instead(script: Path) -> None:
    # Forks would share the random state of Ray's C++ part, and draw the same ids.
    server = ForkServer(["ray"], {})
    assert told_by(start(server, script, os.environ))["parent"] == os.getpid()
    server.close()


def test_the_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "from gmp_atl_dist.runtime.forking import ForkServer; import time\n"
        "s = ForkServer([], {}); print(s.pid, s.folder, flush=True); time.sleep(600)"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert starter.stdout is not None
    pid, folder = starter.stdout.readline().split()
    assert Path(folder).exists()
    server = psutil.Process(int(pid))

    starter.send_signal(signal.SIGKILL)
    starter.wait()
    psutil.wait_procs([server], timeout=GONE_S)

    assert not server.is_running()
    until_s = time.monotonic() + GONE_S
    while Path(folder).exists() and time.monotonic() < until_s:
        time.sleep(0.05)
    assert not Path(folder).exists()


def test_gpus_are_left_to_the_workers() -> None:
    gpu = RuntimeConfig.model_validate({"train": {"gpus": 1}})

    assert set(preloaded(RuntimeConfig())) - set(preloaded(gpu)) == {
        "gmp_atl_dist.training.deepspeed_on_cpu"
    }
    assert preloaded(RuntimeConfig(fork_workers=False)) == ()


@pytest.mark.slow
@pytest.mark.parametrize("gpus", [0, 1])
def test_what_is_preloaded_can_be_forked(gpus: int) -> None:
    modules = preloaded(RuntimeConfig.model_validate({"train": {"gpus": gpus}}))
    code = (
        f"import importlib, sys, threading\nfor m in {modules!r}: importlib.import_module(m)\n"
        "import torch\n"
        "print('ray' in sys.modules, threading.active_count(), torch.cuda.is_initialized(),"
        " 'deepspeed' in sys.modules)"
    )
    env = {name: value for name, value in os.environ.items() if name != "DS_ACCELERATOR"}
    out = subprocess.check_output([sys.executable, "-c", code], text=True, env=env)

    assert out.split()[-4:] == ["False", "1", "False", str(gpus == 0)]


@pytest.mark.slow
def test_ray_forks_its_workers_and_a_killed_one_is_forked_again() -> None:
    """On a Ray of its own, in a process of its own, which leaves nothing behind."""
    done = subprocess.run(
        [sys.executable, WORKERS], capture_output=True, text=True, timeout=240, cwd=Path.cwd()
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])

    assert told["parents"] == [told["server"]] * 3
    assert len(set(told["pids"])) == 3
    assert told["preloaded"] == [True] * 3
    assert told["threads"] == [1, 2, 1]
    assert told["left"] == []


@pytest.mark.slow
def test_forked_workers_end_with_their_raylet() -> None:
    driver = subprocess.Popen(
        [sys.executable, WORKERS, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    family: list[psutil.Process] = [psutil.Process(driver.pid)]
    try:
        assert driver.stdout is not None
        # What workers print appears there as well.
        line = next(line for line in driver.stdout if line.startswith("{"))
        told = json.loads(line)
        family += family[0].children(recursive=True)
        workers = [process for process in family if process.pid in told["pids"]]
        assert len(workers) == 2  # the third was killed

        psutil.Process(told["raylets"][0]).kill()
        _, left = psutil.wait_procs(workers, timeout=GONE_S)

        assert left == []
    finally:
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        driver.wait()
