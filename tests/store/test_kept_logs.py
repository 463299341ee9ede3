"""Logs that are kept in the store while they grow: on a real S3 server, and on a disk."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.runtime.worker_logs import VARIABLE, place_of
from gmp_atl_dist.store import kept_logs
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.kept_logs import LogKeeper, end_of

HANGS_S = 60.0
WORKER = """
import os, sys, time
from gmp_atl_dist.runtime import worker_logs
from gmp_atl_dist.store import kept_logs
kept_logs.LogKeeper.__init__.__kwdefaults__["every_s"] = 0.2
worker_logs.start_keeping()
worker_logs.call_log("warmup fold1 rank 3")
print("the password is", os.environ["MY_PASSWORD"], flush=True)
print("step 1", file=sys.stderr, flush=True)
sys.stdin.readline()
try:
    with worker_logs.keeping_log():
        print("step 2", flush=True)
        raise ValueError("of this rank alone")
except ValueError:
    os._exit(3)
"""


def keeper(store: Store, *files: Path, **options: int) -> LogKeeper:
    return LogKeeper(store, "run_logs/a.log", lambda: [(f.stem, f) for f in files], **options)


def text_of(store: Store, path: str = "run_logs/a.log") -> str:
    return store.read(path).decode()


def test_a_log_is_put_when_it_has_grown_and_without_secrets(
    store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_PASSWORD", "hunter2hunter2")
    store, log = Store.open(store_uri), tmp_path / "driver"
    kept = keeper(store, log)
    kept.look()
    log.touch()
    kept.look()
    assert store.list() == [], "there is nothing to keep yet"

    log.write_text("one, by hunter2hunter2 at https://me:hunter2hunter2@host/x\n")
    kept.look()
    assert text_of(store) == "one, by <MY_PASSWORD> at https://host/x\n"
    before = store.list()[0].mtime_ns
    kept.look()
    assert store.list()[0].mtime_ns == before, "it has not grown"
    with log.open("a") as file:
        file.write("two")
    kept.look()
    assert text_of(store).endswith("two\n")


def test_the_end_of_a_long_log_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {n:04d}\n" for n in range(1000)))
    text = end_of(log, 95)
    first, *lines = text.splitlines()
    assert lines == [f"line {n:04d}" for n in range(991, 1000)]
    assert first == "[9910 bytes before this are left out]"
    assert end_of(log, 10_000) == log.read_text()
    assert end_of(tmp_path / "no log", 10) == ""


def test_a_store_that_refuses_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Refuses(Store):
        def put(self, path: str, data: bytes | memoryview) -> None:
            raise ArtifactError(f"cannot write {path!r}: quota")

    log = tmp_path / "log"
    kept = keeper(Refuses(str(tmp_path / "root")), log)
    with caplog.at_level(logging.WARNING):
        for n in range(3):
            log.write_text("x\n" * (n + 1))
            kept.look()
    assert [r.getMessage() for r in caplog.records] == [
        "the log run_logs/a.log is not kept: cannot write 'run_logs/a.log': quota"
    ]


def test_a_killed_driver_leaves_its_log(store_uri: str, tmp_path: Path) -> None:
    """What it printed more than ``every_s`` before the kill is there: nobody had to say goodbye."""
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from gmp_atl_dist.store.filesystem import Store\n"
        "from gmp_atl_dist.store.kept_logs import LogKeeper\n"
        "log = Path(sys.argv[2]); log.write_text('before the kill\\n')\n"
        "LogKeeper(Store.open(sys.argv[1]), 'run_logs/a.log', lambda: [('log', log)], every_s=0.2).start()\n"
        "time.sleep(600)"
    )
    store = Store.open(store_uri)
    process = subprocess.Popen([sys.executable, "-c", code, store_uri, str(tmp_path / "log")])
    try:
        until_s = time.monotonic() + HANGS_S
        while not store.exists("run_logs/a.log"):
            assert time.monotonic() < until_s
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    assert text_of(store) == "before the kill\n"


def test_a_worker_keeps_its_own_streams_by_its_work(store_uri: str, tmp_path: Path) -> None:
    store = Store.open(store_uri)
    environment = {
        **os.environ,
        VARIABLE: place_of(store_uri, "run_logs/20260101T000000Z-1"),
        "MY_PASSWORD": "hunter2hunter2",
    }
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=err,
            env=environment,
            text=True,
        )
    until_s = time.monotonic() + HANGS_S
    while not (found := store.list("run_logs")):
        assert time.monotonic() < until_s
        assert process.poll() is None, (tmp_path / "err").read_text()
        time.sleep(0.1)
    process.communicate("go on\n", timeout=HANGS_S)
    assert process.returncode == 3
    (entry,) = found
    assert entry.path.startswith("run_logs/20260101T000000Z-1/")
    assert entry.path.endswith(f"-warmup-fold1-rank-3-{process.pid}.log")
    text = text_of(store, entry.path)
    assert "--- standard output ---\nthe password is <MY_PASSWORD>\nstep 2\n" in text
    assert "--- standard error ---\nstep 1\nTraceback (most recent call last):" in text
    assert "ValueError: of this rank alone" in text
    assert "hunter2" not in text


def test_closing_waits_for_no_store_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hangs(Store):
        def put(self, path: str, data: bytes | memoryview) -> None:
            time.sleep(HANGS_S)

    monkeypatch.setattr(kept_logs, "PUT_S", 0.1)
    log = tmp_path / "log"
    log.write_text("x\n")
    kept = keeper(Hangs(str(tmp_path / "root")), log)
    kept.start()
    kept.soon()
    time.sleep(0.3)
    began_s = time.monotonic()
    kept.close()
    assert time.monotonic() - began_s < HANGS_S / 4
