"""A sweep on a real terminal, stopped by Ctrl-C amid a training, and continued by the same command."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.sweeps import write_sweep_files
from support.terminal import on_a_terminal

from gmp_atl_dist.cli.main import main
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.sweeps.record import SweepRecord, read_sweep

pytest_plugins = ["support.one_process"]
# Starting Ray and its workers takes most of the time.
pytestmark = [pytest.mark.nightly, pytest.mark.timeout(2400)]

ARMS = """
[[arms]]
name = "plain"
set = { "finetune.start" = "warmup", "finetune.epochs" = 20, "warmup.epochs" = 40 }
[[arms]]
name = "ce"
set = { "finetune.start" = "backbone", "finetune.loss" = "cross_entropy", "finetune.epochs" = 20 }
"""
SWEEP_S, GRACE_S = 900.0, 120.0


def recorded(root: Path) -> SweepRecord:
    record = read_sweep(Store.open(str(root)), "s")
    assert record is not None
    return record


def test_ctrl_c_stops_a_sweep_and_the_same_command_continues(
    tiny_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, root = write_sweep_files(tmp_path, tiny_corpus, ARMS, seeds=1), tmp_path / "root"
    command = ("-m", "gmp_atl_dist.cli", "sweep", "--config", str(path))
    with on_a_terminal(*command) as terminal:
        # A training has taken updates.
        terminal.until(
            lambda: any(root.glob("artifacts/warmup/*/_progress.json")), "warmup", SWEEP_S
        )
        at_s = terminal.press_ctrl_c()
        assert terminal.wait(GRACE_S) == 130, terminal.text
        assert terminal.family() == []
        shown_s = terminal.shown_at("press Ctrl-C again to end at once")
        assert shown_s is not None
        assert shown_s - at_s < 5
        assert "stopped by Ctrl-C: " in terminal.text
        assert f"to continue: gmp-atl sweep --config {path}" in terminal.text
        assert "interrupted;" not in terminal.text, "said twice"
    record = recorded(root)
    assert record.state == "stopped"
    assert record.failed == ()
    assert record.count("done") < len(record.cells) == 4
    assert [p for p in root.rglob("*") if ".tmp" in p.name] == []
    assert main(["verify", "--root", str(root)]) == 0
    assert "are intact" in capsys.readouterr().out
    made = {p: p.stat().st_mtime_ns for p in root.glob("artifacts/*/*/_manifest.json")}
    assert len(made) >= 2
    assert list(root.glob("checkpoints/*")), "the training saved"

    with on_a_terminal(*command) as terminal:
        assert terminal.wait(SWEEP_S) == 0, terminal.text
    record = recorded(root)
    assert (record.state, record.count("done"), len(record.reports)) == ("done", 4, 2)
    assert len(record.attempts) == 2
    assert {p: p.stat().st_mtime_ns for p in made} == made, "what was done was not made again"
