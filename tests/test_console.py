"""Plain lines where no terminal is; a bar where one is."""

from __future__ import annotations

import contextlib
import json
import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.terminal import on_a_terminal

from gmp_atl_dist import console
from gmp_atl_dist.cli.main import main
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.errors import CorpusError, StoppedError
from gmp_atl_dist.tags import Tags

EXTRACT = Tags("emodb-7", "extract", "fold1")


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(console.time, "monotonic", made)
    return made


def test_a_pipe_gets_a_plain_line_now_and_then(
    capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    with Reporter().bar(EXTRACT) as bar:
        for done in range(30):
            bar.update(done, 30, "1.5 h" if done == 20 else "")
            clock.now_s += 1
    assert capsys.readouterr().out == "extract fold1: 10/30\nextract fold1: 20/30 1.5 h\n"


def test_a_quick_stage_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Reporter(terminal=False).bar(Tags(stage="label")) as bar:
        bar.update(1, 1)
    assert capsys.readouterr().out == ""


def test_a_line_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    text = "s3://bucket/[red]not markup[/red] :smile: " + "x" * 300
    Reporter(terminal=False).line(text)
    assert capsys.readouterr().out == text + "\n", "neither markup nor wrapped"


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter(terminal=True)
    with reporter.bar(Tags(stage="extract", fold="fold1"), "[x]") as bar:
        bar.update(1, 2, "[note]")
        reporter.line("a line meanwhile")
    assert "a line meanwhile" in capsys.readouterr().out


def objects(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_machine_gets_an_object_a_line(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    reporter = Reporter(terminal=True, log_format="json", run="emodb-7")
    reporter.line("before")
    with reporter.tagged(EXTRACT), reporter.bar(EXTRACT) as bar:
        reporter.line('done in 3 s, "quoted" \u00e4')
        clock.now_s += 11
        bar.update(10, 30, "parts, 1.5 h", part="part-00009")

    found = objects(capsys.readouterr().out)
    times = [datetime.fromisoformat(str(line.pop("time"))) for line in found]
    assert all(time.tzinfo == UTC for time in times)
    always = {"level": "info", "run": "emodb-7"}
    stage = {**always, "stage": "extract", "fold": "fold1"}
    assert found == [
        {**always, "stage": "", "fold": "", "message": "before"},
        {**stage, "message": 'done in 3 s, "quoted" \u00e4'},
        {**stage, "message": "parts, 1.5 h", "part": "part-00009", "done": 10, "total": 30},
    ]


def test_an_error_is_told_with_its_stage(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter(log_format="json", run="r")
    with pytest.raises(ValueError, match="it"), reporter.tagged(Tags("r", "label", "fold2")):
        raise ValueError("it")
    reporter.error("a\nb")
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = objects(err)
    assert (line["level"], line["stage"], line["fold"], line["message"]) == (
        *("error", "label", "fold2"),
        "a\nb",
    )


def test_a_whole_command_can_be_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = tmp_path / "x.toml"
    settings = (
        f'run_name = "r1"\nlog_format = "json"\ncorpus = "{tmp_path}"\nroot = "{tmp_path}/r"\n'
    )
    config.write_text(f"[runtime]\n{settings}", encoding="utf-8")
    assert main(["run", "--config", str(config)]) == CorpusError.exit_code
    out, err = capsys.readouterr()
    (line,) = objects(err)
    assert (line["run"], line["level"]) == ("r1", "error")
    assert objects(out) == []


def test_a_stop_is_told_with_how_to_continue(capsys: pytest.CaptureFixture[str]) -> None:
    error = StoppedError(
        "stopped by Ctrl-C: finetune fold1: saved a checkpoint after update 3", 130
    )
    again = "gmp-atl run --config 'a b.toml'"
    Reporter().stopped(error, again, "/x.log")
    assert capsys.readouterr().err.splitlines() == [
        str(error),
        f"to continue: {again}",
        "log of Ray and other libraries: /x.log",
    ]
    reporter = Reporter(log_format="json", run="r")
    with contextlib.suppress(StoppedError), reporter.tagged(Tags("r", "finetune", "fold1")):
        raise error
    reporter.stopping("stopping; press Ctrl-C again to end at once")
    (line,) = objects(capsys.readouterr().out)
    assert (line["level"], line["stage"]) == ("warning", "finetune")
    assert line["message"] == "stopping; press Ctrl-C again to end at once"
    reporter.stopped(error, again, "/x.log")
    (line,) = objects(capsys.readouterr().err)
    line.pop("time")
    assert line == {
        **{"level": "warning", "run": "r", "stage": "finetune", "fold": "fold1"},
        **{"message": str(error), "exit_code": 130, "continue": again, "log": "/x.log"},
    }


def test_progress_for_machines_has_the_expected_end(
    capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    with Reporter(log_format="json").bar(EXTRACT) as bar:
        clock.now_s += 11
        bar.update(10, 30, "parts", ends_in_s=83.4, measures=["1.5 h"])
    (line,) = objects(capsys.readouterr().out)
    assert line["ends_in_s"] == 83
    assert line["message"] == "parts, 83 s left, 1.5 h"


@pytest.mark.parametrize("columns", [40, 80, 120, 200])
def test_rows_stay_below_the_lines(columns: int) -> None:
    """On a real terminal of each width: lines scroll up, nothing wraps, and the rows go at the end."""
    with on_a_terminal("-c", SHOW, columns=columns) as terminal:
        terminal.until(lambda: terminal.screen().lines[3:] == ["whole run"], "rows", 60)
        lines = terminal.screen().lines
        assert lines[:2] == ["a line", "another line"]
        assert "───" in lines[2]
        assert "120/4000" in lines[2]
        assert len(lines) == 4
        terminal.send(signal.SIGUSR1)
        assert terminal.wait(30) == 0
        assert terminal.screen().lines[:3] == ["a line", "another line", "done"]
        assert terminal.screen().wrapped == 0
    assert terminal.text.endswith("done\r\n")


SHOW = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.tags import Tags

class Run:
    def stage_line(self): return "quiet " * 50
    def run_lines(self, stage_ends_in_s):
        assert stage_ends_in_s is None or 0 < stage_ends_in_s <= 7800
        return ["whole run " * 30, "whole run"]

reporter = Reporter()
reporter.line("a line")
with reporter.whole_run(Run()):
    with reporter.bar(Tags(stage="finetune", fold="fold1")) as bar:
        bar.update(120, 4000, "updates", ends_in_s=7800, measures=["accuracy 61 %"] * 9)
        reporter.line("another line")
        signal.sigwait({signal.SIGUSR1})
reporter.line("done")
"""
