"""``gmp-atl predict``: what it prints and writes, its exit codes, a real terminal, and a real Ctrl-C."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.classifiers import EMOTIONS, write_classifier, write_noise
from support.command_line import Run

from gmp_atl_dist import Predictor
from gmp_atl_dist.cli.predict_lines import Columns
from gmp_atl_dist.prediction.results import EmotionSpan, RecordingPrediction

pytest_plugins = ["support.command_line"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("classifier") / "model")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    for i in range(6):
        write_noise(folder / f"{i}.wav", 0.6 + 0.2 * i, seed=i)
    return folder


@pytest.fixture(autouse=True)
def threads_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command sets these for its process, which here is that of the tests."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "2")


def probabilities(model: Path, paths: list[Path]) -> list[dict[str, float]]:
    return Predictor(model).predict(paths)


def test_lines_for_a_pipe(gmp_atl: Run, model: Path, folder: Path) -> None:
    code, out, err = gmp_atl("predict", model, folder)
    paths = sorted(folder.glob("*.wav"))
    expected = [
        f"{path}: "
        + "  ".join(f"{emotion} {p:.3f}" for emotion, p in values.items())
        + f"  -> {max(values, key=lambda emotion: values[emotion])}"
        for path, values in zip(paths, probabilities(model, paths), strict=True)
    ]
    assert code == 0
    assert out.splitlines() == expected
    assert err.startswith("6 recordings predicted: ")


def test_bad_files_are_named_and_the_rest_is_done(
    gmp_atl: Run, model: Path, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "garbage.wav").write_bytes(b"no sound")
    good = folder / "0.wav"
    given = (good, tmp_path / "garbage.wav", tmp_path / "absent.wav", folder / "1.wav")

    code, out, err = gmp_atl("predict", model, *given)

    assert code == 3
    assert [line.partition(": ")[0] for line in out.splitlines()] == [
        str(good),
        str(folder / "1.wav"),
    ]
    assert "error: 2 of 4 recordings could not be predicted:" in err
    assert f"  - {tmp_path}/garbage.wav: the recording cannot be decoded" in err
    assert f"  - {tmp_path}/absent.wav: cannot be read (No such file or directory)" in err

    output = tmp_path / "out.csv"
    assert gmp_atl("predict", model, *given, "--out", output)[0] == 3
    rows = list(csv.DictReader(output.open()))
    assert [row["file"] for row in rows] == list(map(str, given))
    assert [bool(row["error"]) for row in rows] == [False, True, True, False]
    assert rows[1]["emotion"] == rows[1]["p_calm"] == ""


def test_a_recording_that_is_named_twice_is_told(
    gmp_atl: Run, model: Path, folder: Path, tmp_path: Path
) -> None:
    paths = tmp_path / "list.txt"
    paths.write_text(f"{folder}/0.wav\n{folder}/1.wav\n{folder}/0.wav\n")
    code, out, err = gmp_atl("predict", model, paths)
    assert (code, len(out.splitlines())) == (0, 3)
    told = "warning: 1 recording is named more than once, and predicted and counted each time"
    assert f"{told}: {folder}/0.wav" in " ".join(err.split())
    assert "named more than once" not in gmp_atl("predict", model, folder)[2]


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl", "parquet"])
def test_files_of_results(
    gmp_atl: Run, model: Path, folder: Path, tmp_path: Path, suffix: str
) -> None:
    output = tmp_path / f"out.{suffix}"
    output.write_text("older")
    code, out, err = gmp_atl(
        *("predict", model, folder, "--out", output, "--window", "1", "--hop", "0.5")
    )
    assert (code, out) == (0, "")
    assert f"; written to {output}" in err
    assert [path.name for path in tmp_path.iterdir()] == [output.name]
    results = list(Predictor(model).stream(sorted(folder.glob("*")), window_s=1, hop_s=0.5))
    if suffix in ("json", "jsonl"):
        text = output.read_text()
        found = json.loads(text) if suffix == "json" else list(map(json.loads, text.splitlines()))
        for row, result in zip(found, results, strict=True):
            assert result.verdict is not None
            assert row["file"] == result.file
            assert row["probabilities"] == result.verdict.probabilities
            assert row["duration_s"] == result.verdict.end_s
            assert [w["start_s"] for w in row["windows"]] == [w.start_s for w in result.windows]
        return
    rows = (
        list(csv.DictReader(output.open()))
        if suffix == "csv"
        else pq.read_table(output).to_pylist()
    )
    expected = [
        (result.file, part, span)
        for result in results
        for part, span in [("whole", result.verdict), *(("window", w) for w in result.windows)]
    ]
    assert len(rows) == len(expected)
    for row, (file, part, span) in zip(rows, expected, strict=True):
        assert span is not None
        assert (row["file"], row["part"], row["emotion"]) == (file, part, span.emotion)
        found = [float(row[name]) for name in ("start_s", "end_s", "probability", "p_glad")]
        wanted = [span.start_s, span.end_s, span.probability, span.probabilities["glad"]]
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_windows_and_notes_on_screen(gmp_atl: Run, model: Path, tmp_path: Path) -> None:
    path = write_noise(tmp_path / "long.wav", 61, rate_hz=8_000)
    code, out, err = gmp_atl("predict", model, path)
    assert (code, len(out.splitlines())) == (0, 1)
    assert "note: long: 1 recording: longer than 60 s" in err
    assert "note: low_rate: 1 recording: sample rate below 16000 Hz" in err
    short = write_noise(tmp_path / "short.wav", 4)
    code, out, err = gmp_atl("predict", model, short, "--window", "3", "--hop", "1")
    heads = [line.partition(": ")[0] for line in out.splitlines()]
    assert heads == [str(short), f"{short} [0.00-3.00 s]", f"{short} [1.00-4.00 s]"]
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "no recordings are named"),
        (("a.wav", "--out", "x.xls"), "use a file that ends in .csv, .json, .jsonl, .parquet"),
        (("a.wav", "--out", "absent/x.csv"), "its folder does not exist"),
        (("a.wav", "--out", "s3://b/x.csv"), "is no path of this machine"),
        (("a.wav", "--hop", "1"), "--hop needs --window"),
        (("a.wav", "--window", "1", "--hop", "2"), "so that no part of a recording is left out"),
        (("a.wav", "--config", "demo"), "--config and --set work with --ray only"),
        (("a", "b", "--ray", "--root", "r"), "predict --ray takes one corpus"),
        (("a", "--ray"), "needs --root"),
        (("a", "--ray", "--root", "r", "--window", "3"), "do not work with --ray"),
    ],
)
def test_wrong_options(gmp_atl: Run, model: Path, arguments: tuple[str, ...], said: str) -> None:
    code, out, err = gmp_atl("predict", model, *arguments)
    assert (code, out) == (2, "")
    assert said in err


def test_an_output_that_cannot_be_written(
    gmp_atl: Run, model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs a device that is always full")
    # The file's temporary name is a link to a device that is full.
    monkeypatch.setattr("uuid.UUID.hex", "0" * 32)
    output = folder.parent / "full.csv"
    (folder.parent / ".full.csv.tmp-00000000").unlink(missing_ok=True)
    assert gmp_atl("predict", model, folder, "--out", output)[0] == 0
    output.unlink()
    (folder.parent / ".full.csv.tmp-00000000").symlink_to("/dev/full")
    code, _, err = gmp_atl("predict", model, folder, "--out", output)
    assert code == 4
    assert "cannot be written" in err
    assert not output.exists()


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")],
)
def test_a_stop_keeps_what_is_finished_and_says_so(
    gmp_atl: Run, model: Path, folder: Path, tmp_path: Path, number: int, code: int, said: str
) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"{folder / '0.wav'}\n" * 50_000)
    output = tmp_path / "out.csv"

    def stop_after_the_first_rows() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if any(path.stat().st_size > 8_000 for path in tmp_path.glob(".out.csv.tmp-*")):
                os.kill(os.getpid(), number)
                return
            time.sleep(0.01)

    thread = threading.Thread(target=stop_after_the_first_rows)
    thread.start()
    found, _, err = gmp_atl("predict", model, listed, "--out", output)
    thread.join()

    assert found == code
    partial = tmp_path / "out.partial.csv"
    words = (
        rf"stopped by {said}: (\d+) of 50000 recordings are in {partial}; {output} was not written"
    )
    match = re.search(words, err)
    assert match, err
    rows = list(csv.DictReader(partial.open()))
    assert len(rows) == int(match[1]) < 50_000
    assert all(row["error"] == "" and row["probability"] for row in rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["list.txt", "out.partial.csv"]


class Terminal:
    """A command on a real terminal."""

    def __init__(self, columns: int, *arguments: str | Path) -> None:
        ours, theirs = pty.openpty()
        self._ours = ours
        environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gmp_atl_dist.cli", *map(str, arguments)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            start_new_session=True,
        )
        os.close(theirs)

    def chunks(self) -> Iterator[str]:
        """What it writes, as it comes, without colours and movements of the cursor."""
        while True:
            try:
                chunk = os.read(self._ours, 65_536)
            except OSError:
                return
            if not chunk:
                return
            yield re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", chunk.decode(errors="replace"))

    def interrupt(self) -> None:
        """What Ctrl-C sends."""
        os.killpg(self.process.pid, signal.SIGINT)


def test_a_real_terminal_and_ctrl_c(model: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{folder / '0.wav'}\n" * 50_000)
    terminal = Terminal(80, "predict", model, tmp_path / "list.txt")
    text = ""
    for chunk in terminal.chunks():
        text += chunk
        if text.count("glad") > 60 and "/50000" in text:
            terminal.interrupt()
            break
    text += "".join(terminal.chunks())

    assert terminal.process.wait(60) == 130
    lines = [line.strip("\r") for line in text.replace("\r", "\n").split("\n")]
    (header,) = (line for line in lines if line.startswith("recording"))
    assert header.split() == ["recording", "emotion", "prob.", "others"]
    rows = [line for line in lines if re.match(r".*0\.wav +(calm|cross|glad) ", line)]
    assert len(rows) > 50
    assert all(len(row.rstrip()) <= 80 for row in rows)
    # Columns are aligned with their headings.
    assert {row.index(re.findall("|".join(EMOTIONS), row)[0]) for row in rows} == {
        header.index("emotion")
    }
    assert re.search(r"stopped by Ctrl-C: \d+ of 50000 recordings were predicted", text)


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_columns_fit_every_width(width: int) -> None:
    emotions = ("angry", "calm", "happy", "neutral", "sad", "surprised")
    whole = EmotionSpan(0, 5.5, dict(zip(emotions, (0.5, 0.2, 0.1, 0.1, 0.06, 0.04), strict=True)))
    name = "/data/nemo/audio/EB0/EB0_anger_10.flac"
    columns = Columns(width, len(name), emotions)
    lines = columns.header() + columns.lines(RecordingPrediction(name, whole, (whole,)))
    lines += columns.lines(RecordingPrediction(name, error="cannot be read (Permission denied)"))

    assert max(map(len, lines)) <= width
    # The end of a long name and the verdict are always there.
    assert all("anger_10.flac" in line for line in (lines[1], lines[3]))
    assert all("angry" in line and "0.500" in line for line in lines[1:3])
    assert "0.00-5.50 s" in lines[2]
    if width >= 120:  # everything fits
        assert name in lines[1] or width < 200
        assert "surprised 0.04" in lines[1]
        assert lines[3].endswith("cannot be read (Permission denied)")
