"""The commands of the README and of the page on clusters, as they stand.

Only what names a machine or a place of the reader's is replaced: the folder of a corpus, the address of a
cluster, a bucket, and the name of a configuration.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
import soundfile as sf
from support.s3_server import S3Server

from gmp_atl_dist.store.filesystem import Store
from ray_jobs.local import Head, private_head

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

REPOSITORY = Path(__file__).resolve().parents[2]
BINARIES = Path(sys.executable).parent
TOKENS = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS")
_BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[str]:
    """The commands of a page, by fenced block."""
    return _BLOCK.findall((REPOSITORY / page).read_text(encoding="utf-8"))


def block(page: str, holds: str) -> str:
    """The one block of a page that holds a text."""
    (found,) = [text for text in blocks(page) if holds in text]
    return found


def write_corpus(folder: Path) -> None:
    """Two seconds of noise per speaker, in the columns that the README names."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["id,path,speaker,gender,emotion"]
    for speaker, gender in (("anna", "female"), ("ben", "male")):
        for emotion in ("happy", "sad"):
            for take in range(2):
                name = f"{speaker}-{emotion}-{take}"
                sf.write(folder / f"{name}.wav", rng.normal(0, 0.05, 8_000), 16_000)
                lines.append(f"{name},{name}.wav,{speaker},{gender},{emotion}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a reader types: with what a clone has that the commands name."""
    made = tmp_path_factory.mktemp("clone")
    for name in ("ray_jobs", "configs"):
        shutil.copytree(REPOSITORY / name, made / name, symlinks=False)
    write_corpus(made.parent / "my-corpus")
    # Ray uploads the working directory without what git ignores, runs/ above all.
    shutil.copy(REPOSITORY / ".gitignore", made)
    recordings = made.parent / "my-corpus"
    shutil.copy(recordings / "ben-sad-0.wav", made / "interview.wav")
    (made / "recordings").mkdir()
    shutil.copy(recordings / "ben-happy-0.wav", made / "recordings")
    return made


@pytest.fixture(scope="module")
def head(s3_server: S3Server) -> Iterator[Head]:
    """A cluster that wants a token, and whose nodes reach the bucket."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", os.pathsep.join([str(BINARIES), os.environ["PATH"]]))
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        with private_head() as started:
            yield started


def environment(home: Path) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name not in TOKENS}
    return env | {
        "PATH": os.pathsep.join([str(BINARIES), env["PATH"]]),
        "PYTHONPATH": str(REPOSITORY),
        "HOME": str(home),
        # No model is downloaded: the machine is one that cannot reach the hub.
        "HF_HUB_OFFLINE": "1",
        "NO_PROXY": "127.0.0.1,localhost",
    }


def typed(script: str, folder: Path, replaced: dict[str, str], home: Path) -> str:
    """Run a block of commands in a shell that stops at the first error, and return what it printed.

    The shell has nothing of the cluster but the token in the home of its user.
    """
    for old, new in {"/data/my-corpus": str(folder.parent / "my-corpus"), **replaced}.items():
        script = script.replace(old, new)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment(home),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def only_run(root: Path) -> str:
    """The name of the run below a root."""
    (record,) = root.glob("runs/*/run.json")
    return record.parent.name


def serves_until_ctrl_c(command: str, folder: Path, home: Path) -> None:
    """The server of a command is ready at the address that the README names, and ends with Ctrl-C."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [*shlex.split(command, comments=True), "--port", str(port)]
    env = environment(home)
    with subprocess.Popen(words, cwd=folder, env=env, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        lines: list[str] = []
        for line in server.stderr:
            lines.append(line)
            if line.startswith("ready: "):
                break
        try:
            assert f"ready: http://127.0.0.1:{port}/" in lines[-1], lines
            with urlopen(f"http://127.0.0.1:{port}/healthz", timeout=60) as answer:
                assert json.load(answer) == {"status": "ok"}
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait(120) == 130


@pytest.fixture
def home(folder: Path, head: Head) -> Path:
    made = folder.parent / "home"
    (made / ".ray").mkdir(parents=True, exist_ok=True)
    (made / ".ray" / "auth_token").write_text(head.token)
    return made


def test_every_command_of_the_readme_is_in_a_block_that_is_tested() -> None:
    holds = ("make demo", "config init", "gmp-atl submit", "gmp-atl runs")
    assert len(blocks("README.md")) == len(holds), "a new block needs a test here"
    for text in holds:
        block("README.md", text)


@pytest.mark.nightly
def test_own_data_then_a_cluster_then_a_model(
    folder: Path, head: Head, home: Path, s3_server: S3Server
) -> None:
    """In the README's order: each block uses what the one before has made."""
    typed(block("README.md", "config init"), folder, {}, home)
    assert list((folder / "runs").rglob("report.json"))

    bucket = Store.open(f"s3://{s3_server.bucket}/my-corpus")
    for file in (folder.parent / "my-corpus").iterdir():
        bucket.put(file.name, file.read_bytes())
    place = {"http://HEAD:8265": head.url, "my-bucket": s3_server.bucket}
    said = typed(block("README.md", "gmp-atl submit"), folder, place, home)
    assert "succeeded" in said
    assert head.token not in said
    assert Store.open(f"s3://{s3_server.bucket}/runs").list()

    script, serve = block("README.md", "gmp-atl runs").split("gmp-atl serve", 1)
    said = typed(script, folder, {"RUN": only_run(folder / "runs" / "my")}, home)
    assert "chance" in said
    assert "happy" in (folder / "emotions.csv").read_text()
    assert "interview.wav" in said
    serves_until_ctrl_c(f"gmp-atl serve{serve}", folder, home)

    shutil.rmtree(folder / "emotion")  # a large file, which Ray would upload

    # The page on clusters: a configuration in configs/, and Ray's own command with the same result.
    shutil.copy(folder / "my.toml", folder / "configs" / "my.toml")
    place["NAME"] = "my"
    for command in ("gmp-atl submit", "ray job submit"):
        said = typed(block("docs/cluster.md", command), folder, place, home)
        assert "succeeded" in said
        assert head.token not in said
