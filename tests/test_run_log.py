"""What libraries print goes to the log file; our lines and our warnings reach the person."""

from __future__ import annotations

import json
import logging
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from support.s3_server import S3Server

from gmp_atl_dist.cli.run import run_context
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.errors import WorkerError
from gmp_atl_dist.run_log import FOLDER, RunLog, mark_warnings
from gmp_atl_dist.store.filesystem import Store

REPOSITORY = Path(__file__).resolve().parents[1]

# Prints in every way that libraries do, with our lines between.
NOISY = """
import logging, os, subprocess, sys, warnings
sys.path.insert(0, sys.argv[2])
early = logging.StreamHandler()  # holds standard error from before the run
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.run_log import RunLog
with RunLog(sys.argv[1]) as log:
    reporter = Reporter(out=log.out, err=log.err)
    log.show_warnings(reporter.warning)
    reporter.line("ours 1")
    print("foreign print")
    os.write(1, b"foreign C++ out\\n")
    os.write(2, b"[2026-11-26 E 1 2] core_worker.cc:1: foreign C++ err\\n")
    subprocess.run([sys.executable, "-c", "print('foreign child')"])
    warnings.warn("foreign warning", FutureWarning)
    logging.getLogger("ray").error("foreign logger")
    early.emit(logging.makeLogRecord({"msg": "foreign early logger"}))
    sys.stderr.write("\\r10 % foreign bar\\r20 % foreign bar")
    sys.stderr.write("\\n")
    print("\\x1b[36m(RayTrainWorker pid=7)\\x1b[0m Reporting training result 2", file=sys.stderr)
    print("\\x1b[36m(W pid=7)\\x1b[0m gmp_atl_dist warning: checkpoint 5 is passed over", file=sys.stderr)
    logging.getLogger("gmp_atl_dist.training.loop").warning("update %d is skipped", 3)
    reporter.error("ours 2", str(log.path))
print("after")
"""
OURS = [
    "ours 1",
    "warning: checkpoint 5 is passed over",
    "warning: update 3 is skipped",
    "error: ours 2",
    "log of Ray and other libraries: LOG",
    "after",
]


def lines_of(output: bytes, root: Path) -> list[str]:
    (log,) = (root / FOLDER).iterdir()
    return output.decode().replace("\r\n", "\n").replace(str(log), "LOG").splitlines()


def check_log(root: Path) -> None:
    (log,) = (root / FOLDER).iterdir()
    text = log.read_text()
    for words in ("print", "C++ out", "C++ err", "child", "warning", "logger", "early logger"):
        assert f"foreign {words}" in text
    assert "20 % foreign bar\n" in text
    assert "(RayTrainWorker pid=7) Reporting training result 2\n" in text
    assert "\x1b" not in text
    assert "ours" not in text


def test_a_pipe_gets_our_lines_alone(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NOISY, str(tmp_path), str(REPOSITORY)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=True,
    )
    # Standard output and error have buffers of their own, so only the order within each is certain.
    assert sorted(lines_of(done.stdout, tmp_path)) == sorted(OURS)
    assert b"\x1b" not in done.stdout
    check_log(tmp_path)


def test_a_terminal_gets_our_lines_alone(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", NOISY, str(tmp_path), str(REPOSITORY)], stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    output = b""
    while chunk := _read(ours):
        output += chunk
    os.close(ours)
    assert process.wait() == 0
    assert lines_of(re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", output), tmp_path) == OURS
    check_log(tmp_path)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except OSError:
        return b""  # Linux: the other side is closed


def test_a_run_without_foreign_output_leaves_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "new" / "root"
    with RunLog(str(root)) as log:
        Reporter(out=log.out).line("ours")
        assert log.is_empty
    assert capsys.readouterr().out == "ours\n"
    assert not root.parent.exists()


def test_where_the_file_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    (tmp_path / "file").write_text("")
    places: list[Path] = []
    for root in (
        str(tmp_path),
        tmp_path.as_uri(),
        "s3://bucket/runs",
        str(tmp_path / "file" / "x"),
    ):
        with RunLog(root) as log:
            places.append(log.path.parent)
    below, elsewhere = tmp_path / FOLDER, tmp_path / "temporary" / "gmp-atl-logs"
    assert places == [below, below, elsewhere, elsewhere]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_an_error_names_the_log_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    settings = {"root": str(tmp_path), "log_format": log_format}
    config = RunConfig.model_validate({"runtime": settings})
    with pytest.raises(typer.Exit) as e, run_context(config):  # noqa: PT012
        print("foreign traceback", file=sys.stderr)
        raise WorkerError("workers kept failing")
    out, err = capsys.readouterr()
    (log,) = (tmp_path / FOLDER).iterdir()
    assert (e.value.exit_code, out) == (WorkerError.exit_code, "")
    assert log.read_text() == "foreign traceback\n"
    if log_format == "json":
        assert (json.loads(err)["message"], json.loads(err)["log"]) == (
            *("workers kept failing", str(log)),
        )
    else:
        assert err == f"error: workers kept failing\nlog of Ray and other libraries: {log}\n"


def test_a_remote_root_gets_a_copy(
    s3_server: S3Server,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = Store.open(s3_server.new_uri())
    with run_context(RunConfig.model_validate({"runtime": {"root": store.uri}})):
        print("foreign")
    (entry,) = store.list(FOLDER)
    assert store.read(entry.path) == b"foreign\n"
    assert capsys.readouterr().out == f"log of Ray and other libraries: {store.uri}/{entry.path}\n"


def test_streams_and_loggers_are_as_before(tmp_path: Path) -> None:
    logger = logging.getLogger("gmp_atl_dist")
    before = (sys.stdout, sys.stderr, list(logger.handlers), logger.propagate)
    with RunLog(str(tmp_path)):
        kept = sys.stderr
    with pytest.raises(ZeroDivisionError), RunLog(str(tmp_path)):
        raise ZeroDivisionError
    assert (sys.stdout, sys.stderr, list(logger.handlers), logger.propagate) == before
    # A handler of logging may still hold the stream of the run.
    assert kept.write("late\n") == 5


def test_workers_mark_their_warnings_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("gmp_atl_dist")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", True)
    mark_warnings()
    mark_warnings()
    logging.getLogger("gmp_atl_dist.training.checkpoint").warning("%s was not\nsealed", "a")
    logging.getLogger("gmp_atl_dist.training.checkpoint").info("nothing")
    assert capsys.readouterr().err == "gmp_atl_dist warning: a was not sealed\n"


def test_a_warning_of_several_workers_is_shown_without_rays_remark(tmp_path: Path) -> None:
    shown: list[str] = []
    with RunLog(str(tmp_path)) as log:
        log.show_warnings(shown.append)
        print(
            "(W pid=7) gmp_atl_dist warning: twice\x1b[32m [repeated 2x across cluster] (Ray ...)"
        )
    assert shown == ["twice"]
