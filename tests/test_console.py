"""Plain lines where no terminal is; a bar where one is."""

from __future__ import annotations

import pytest

from gmp_atl_dist import console
from gmp_atl_dist.console import Reporter


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
    with Reporter().bar("extract fold1") as bar:
        for done in range(30):
            bar.update(done, 30, "1.5 h" if done == 20 else "")
            clock.now_s += 1
    assert capsys.readouterr().out == "extract fold1: 10/30\nextract fold1: 20/30 1.5 h\n"


def test_a_quick_stage_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Reporter(terminal=False).bar("label") as bar:
        bar.update(1, 1)
    assert capsys.readouterr().out == ""


def test_a_line_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    text = "s3://bucket/[red]not markup[/red] :smile: " + "x" * 300
    Reporter(terminal=False).line(text)
    assert capsys.readouterr().out == text + "\n", "neither markup nor wrapped"


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter(terminal=True)
    with reporter.bar("extract fold1 [x]") as bar:
        bar.update(1, 2, "[note]")
        reporter.line("a line meanwhile")
    assert "a line meanwhile" in capsys.readouterr().out
