"""Plain lines where no terminal is; a bar where one is."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gmp_atl_dist import console
from gmp_atl_dist.cli.main import main
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.errors import CorpusError
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
