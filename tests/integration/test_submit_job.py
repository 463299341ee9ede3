"""``gmp-atl submit`` and ``doctor`` against a real Ray head that wants a token. One head for all."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from gmp_atl_dist.config import RuntimeConfig
from gmp_atl_dist.doctor.cluster import Versions, check_cluster
from gmp_atl_dist.doctor.findings import Finding
from ray_jobs import local
from ray_jobs.local import Head, private_head

pytestmark = pytest.mark.timeout(900)

HANGS_S = 300.0
REPOSITORY = Path(__file__).resolve().parents[2]
TOKENS = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")

SUBMIT = """
import sys
from pathlib import Path
from gmp_atl_dist.ray_api.jobs import Jobs
Jobs(sys.argv[1]).submit(
    "waits", sys.argv[2], folder=Path(sys.argv[3]), excludes=(), env={}, metadata={}
)
"""
WAIT = """
import sys, time
from pathlib import Path
print("the first line", flush=True)
while not Path(sys.argv[1]).exists():
    time.sleep(0.1)
print("the last line")
sys.exit(3)
"""


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with pytest.MonkeyPatch.context() as patch:
        # Jobs call python by its name, as they do in an image.
        beside = str(Path(sys.executable).parent)
        patch.setenv("PATH", os.pathsep.join([beside, os.environ["PATH"]]))
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        with private_head() as started:
            yield started


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory whose run cannot work: there is no corpus."""
    made = tmp_path / "work"
    made.mkdir()
    (made / "run.toml").write_text('[runtime]\ncorpus = "nowhere"\n')
    return made


def submit(head: Head, folder: Path, *more: str, **env: str) -> subprocess.Popen[str]:
    """Starts the command in ``folder``; Ray's own address variable points elsewhere."""
    command = [sys.executable, "-m", "gmp_atl_dist.cli", "submit", "--address", head.url]
    command += ["--config", "run.toml", "--root", str(folder.parent / "root"), *more]
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**head.env, "RAY_ADDRESS": "192.0.2.1:1", "PYTHONPATH": str(REPOSITORY), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=HANGS_S)
    assert "Traceback" not in out + err
    return process.returncode, out, err


def test_a_local_job_that_ends_well_is_0(
    head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """On the head of this module; ``test_local_ray.py`` has jobs that fail, on heads of their own."""
    monkeypatch.setattr(local, "private_head", lambda **_: nullcontext(head))
    for name in ("NO_PROXY", "no_proxy"):  # which run_job sets in this process
        monkeypatch.setenv(name, head.env[name])
    script = tmp_path / "job.py"
    script.write_text("print('well')")

    assert local.run_job(script, []) == 0
    assert capfd.readouterr().out.count("well") == 1


def test_a_token_is_asked_for_and_checked(head: Head, folder: Path) -> None:
    unarmed = submit(head, folder, RAY_AUTH_MODE="disabled")
    code, out, err = ended(unarmed)
    assert (code, out) == (7, "")
    assert "no token was sent" in err
    assert "RAY_AUTH_MODE=token" in err

    code, _, err = ended(submit(head, folder, RAY_AUTH_TOKEN="of-another-cluster"))
    assert code == 7
    assert "refused our token" in err
    assert "of-another-cluster" not in err


def test_the_job_is_followed_and_its_exit_code_is_ours(head: Head, folder: Path) -> None:
    code, out, err = ended(submit(head, folder))

    assert code == 8
    assert "fatal   corpus" in out
    assert out.count("ok      store") == 4, "each line of the log once"
    assert "gmp-atl submit --address" in err
    assert "ray job stop" in err
    assert head.env["RAY_AUTH_TOKEN"] not in out + err

    # It failed, so the next one is another job.
    code, _, err = ended(submit(head, folder, "--no-wait", "--no-doctor"))
    assert code == 0
    assert "-2 submitted" in err

    described = str(head.get("/api/jobs/" + err.partition(" ")[0]))
    assert head.env["RAY_AUTH_TOKEN"] not in described


def test_following_ends_with_ctrl_c_and_is_taken_up_again(head: Head, folder: Path) -> None:
    (folder / "wait.py").write_text(WAIT)
    go = folder.parent / "go"
    subprocess.run(
        [sys.executable, "-c", SUBMIT, head.url, f"python wait.py {go}", str(folder)],
        env={**head.env, "PYTHONPATH": str(REPOSITORY)},
        check=True,
    )
    # A shell's background jobs ignore it, and so do their children unless told.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    follower = submit(head, folder, "--submission-id", "waits")
    signal.signal(signal.SIGINT, before)
    assert follower.stdout is not None
    while "the first line" not in (line := follower.stdout.readline()):
        assert line or follower.poll() is None
    follower.send_signal(signal.SIGINT)
    code, _, err = ended(follower)
    assert code == 130
    assert "waits keeps running" in err
    assert head.get("/api/jobs/waits")["status"] == "RUNNING"

    again = submit(head, folder, "--submission-id", "waits")
    assert again.stderr is not None
    assert "waits is running already" in again.stderr.readline()
    go.write_text("")
    code, out, _ = ended(again)

    assert code == 3
    assert out.count("the first line") == 1
    assert out.count("the last line") == 1


@pytest.fixture
def armed(head: Head, monkeypatch: pytest.MonkeyPatch) -> str:
    """The cluster's address, in an environment with its token."""
    for name in TOKENS[:2]:
        monkeypatch.setenv(name, head.env[name])
    return f"127.0.0.1:{head.gcs_port}"


def bad(address: str, expected: Versions | None = None, **sections: object) -> list[Finding]:
    config = RuntimeConfig.model_validate({"ray_address": address, "root": "s3://b/x", **sections})
    return [f for f in check_cluster(config, 10.0, expected) if f.severity != "ok"]


def test_doctor_asks_a_real_cluster(armed: str) -> None:
    assert bad(armed, ingest={"workers": 1}) == []

    found = bad(armed, train={"workers": 9, "cpus": 999}, label={"gpus": 1})
    assert [(f.severity, f.item.partition(":")[0]) for f in found] == [
        ("fatal", "runtime.label"),
        ("fatal", "runtime.train"),
    ]
    assert "no node has a GPU" in found[0].value

    (found, *_) = bad(armed, Versions("2.0.0", Versions.ours().python))
    assert found.severity == "fatal"
    assert "2.0.0 here" in found.value


def test_doctor_names_a_token_that_is_wrong_or_missing(
    armed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of-another-cluster")
    (wrong,) = bad(armed)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    (missing,) = bad(armed)

    for found in (wrong, missing):
        assert found.severity == "fatal"
        assert "token" in found.value
        assert "RAY_AUTH_TOKEN" in found.remedy


def test_doctor_does_not_wait_for_a_ray_that_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = RuntimeConfig(ray_address=f"127.0.0.1:{silent.getsockname()[1]}")
        (found,) = check_cluster(config, 3.0)

    assert found.severity == "fatal"
    assert "no answer within 3 s" in found.value


def test_doctor_knows_a_dashboard_from_a_cluster(head: Head) -> None:
    (found,) = bad(head.url)

    assert "6379" in found.remedy
