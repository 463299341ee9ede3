"""A run on a real terminal, stopped in each of its stages, each time continued by the same command."""

from __future__ import annotations

import re
import signal
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest
from support.pipeline_runs import RUN_S, Reference, Root, finished
from support.terminal import Terminal, on_a_terminal

pytest_plugins = ["support.pipeline_runs"]
pytestmark = [pytest.mark.timeout(5400), pytest.mark.slow]

GRACE_S = 120.0
TRAINED = ("warmup", "retrain", "finetune")
STOPS = (
    # stage, and how it is stopped: Ctrl-C on the keyboard, a signal, or the window that is closed
    ("ingest", "ctrl-c"),
    ("warmup", "ctrl-c"),
    ("extract", "SIGTERM"),
    ("cluster", "SIGHUP"),
    ("label", "ctrl-c"),
    ("retrain", "closed"),
    ("retrain", "ctrl-c"),
    ("finetune", "SIGTERM"),
    ("evaluate", "ctrl-c"),
    ("report", "ctrl-c"),
)
CODES = {"ctrl-c": 130, "SIGTERM": 143, "SIGHUP": 129, "closed": 129}
# Trainings of some seconds, so that each signal finds one under way.
LONG = tuple(
    f"--set={key}" for key in ("warmup.epochs=40", "retrain.steps=300", "finetune.epochs=20")
)
KINDS = ("ingest", "warmup", "extract", "cluster", "label", "retrain", "finetune", "evaluate")


def stop(terminal: Terminal, how: str) -> float:
    if how == "ctrl-c":
        return terminal.press_ctrl_c()
    if how == "closed":
        return terminal.hang_up()
    return terminal.send(signal.Signals[how])


def reached(terminal: Terminal, root: Root, stage: str) -> bool:
    """Whether a run works in ``stage``; of a training, whether it has taken updates of its own."""
    if terminal.shown_at(rf"{stage}(?: fold1)?: running") is None:
        return False
    written = [p.stat().st_mtime for p in root.folder.glob(f"artifacts/{stage}/*/_progress.json")]
    return stage not in TRAINED or max(written, default=0.0) > terminal.started_s


def last_words(terminal: Terminal, root: Root) -> str:
    """What a failure shows: the end of the screen, and that of the log of Ray."""
    return "\n".join([*terminal.screen().lines[-20:], log_of(root)[-6000:]])


def log_of(root: Root) -> str:
    newest = max((root.folder / "run_logs").glob("*.log"), key=lambda p: p.stat().st_mtime)
    return newest.read_text(errors="replace")


@pytest.mark.nightly
def test_a_run_that_is_stopped_in_every_stage_comes_to_the_same_bytes(
    reference: Reference, tmp_path: Path
) -> None:
    root, undisturbed = Root(tmp_path / "root"), Root(tmp_path / "undisturbed")
    finished(
        *reference.command("run", *LONG, root=undisturbed), log=tmp_path / "log", limit_s=RUN_S
    )
    command = ("-m", "gmp_atl_dist.cli", *reference.command("run", *LONG, root=root))
    for stage, how in STOPS:
        with on_a_terminal(*command) as terminal:
            terminal.until(partial(reached, terminal, root, stage), stage, RUN_S)
            at_s = stop(terminal, how)
            code = terminal.wait(GRACE_S)
            took_s = time.monotonic() - at_s
            print(f"{stage} {how}: {code} after {took_s:.1f} s")
            assert code == CODES[how], last_words(terminal, root)
            assert terminal.family() == []
            text = terminal.text if how != "closed" else log_of(root)
            assert re.search(r"stopping.*; press Ctrl-C again to end at once", text)
            assert re.search(r"stopped by (?:Ctrl-C|SIG\w+): ", text)
            assert "to continue: gmp-atl run --" in text
            assert "interrupted;" not in text, "said twice"
            if how != "closed":
                shown_s = terminal.shown_at("press Ctrl-C again")
                assert shown_s is not None
                assert shown_s - at_s < 2
            if stage in TRAINED:
                assert "saving a checkpoint" in text
                assert f"{stage} fold1: saved a checkpoint after update" in text
                assert root.checkpoint_steps(stage)

    with on_a_terminal(*command) as terminal:
        assert terminal.wait(RUN_S) == 0, terminal.text

    assert [len(root.resumed_at(kind)) for kind in TRAINED] == [1, 2, 1]
    for kind in KINDS:
        found = root.learnt if kind in TRAINED else root.objects
        expected = undisturbed.learnt if kind in TRAINED else undisturbed.objects
        assert found(kind) == expected(kind), kind
    assert root.objects("report").keys() == undisturbed.objects("report").keys()


@pytest.mark.parametrize(
    ("stage", "before"),
    [
        ("ingest", ()),
        pytest.param("extract", ("ingest", "backbone", "warmup"), marks=pytest.mark.nightly),
        pytest.param(
            "label",
            ("ingest", "backbone", "warmup", "extract", "cluster", "codebook"),
            marks=pytest.mark.nightly,
        ),
    ],
)
def test_sigterm_in_a_mapped_stage_ends_with_its_code(
    reference: Reference, tmp_path: Path, stage: str, before: tuple[str, ...]
) -> None:
    """Not by SIGABRT (-6, 134): Ray's own handler would abort the process, and a job that was only stopped
    would count as one that crashed."""
    place = tmp_path / "root"
    root = reference.root.copy_to(place, *before) if before else Root(place)
    command = ("-m", "gmp_atl_dist.cli", *reference.command("stage", stage, root=root))
    with on_a_terminal(*command) as terminal:
        terminal.until(
            lambda: next(root.folder.glob(f"artifacts/{stage}/*/parts/*.parquet"), None),
            "the first part",
            RUN_S,
        )
        at_s = terminal.send(signal.SIGTERM)
        assert terminal.wait(GRACE_S) == 143, last_words(terminal, root)
        assert terminal.family() == []
        assert "stopped by SIGTERM: " in terminal.text
        assert "to continue: gmp-atl stage" in terminal.text
        print(f"{stage}: {time.monotonic() - at_s:.1f} s")


@pytest.mark.nightly
def test_a_second_ctrl_c_leaves_no_ray_behind(reference: Reference, tmp_path: Path) -> None:
    root = reference.root.copy_to(tmp_path / "root", "ingest", "backbone")
    command = ("-m", "gmp_atl_dist.cli", *reference.command("run", *LONG, root=root))
    with on_a_terminal(*command) as terminal:
        terminal.until(lambda: reached(terminal, root, "warmup"), "warmup", RUN_S)
        assert len(terminal.family()) > 5
        terminal.press_ctrl_c()
        terminal.until(lambda: terminal.shown_at("press Ctrl-C again"), "the line", GRACE_S)
        time.sleep(0.2)
        terminal.press_ctrl_c()
        assert terminal.wait(10) == 130, terminal.text
        assert terminal.family() == []


def test_a_stop_while_ray_starts_leaves_nothing(reference: Reference, tmp_path: Path) -> None:
    root = reference.root.copy_to(tmp_path / "root", "ingest", "backbone")
    command = ("-m", "gmp_atl_dist.cli", *reference.command("stage", "warmup", root=root))
    with on_a_terminal(*command) as terminal:
        terminal.until(
            lambda: any("gcs_server" in line for line in terminal.family()), "Ray's start", RUN_S
        )
        terminal.press_ctrl_c()
        assert terminal.wait(GRACE_S) == 130, last_words(terminal, root)
        assert "stopped by Ctrl-C: finished stages and parts are kept" in terminal.text
        assert terminal.family() == []


@pytest.mark.nightly
def test_a_stop_while_the_gang_restarts(reference: Reference, tmp_path: Path) -> None:
    """What the old gang had not saved is lost already; the new one ends before it loads anything."""
    root = reference.root.copy_to(tmp_path / "root", "ingest", "backbone")
    command = ("-m", "gmp_atl_dist.cli", *reference.command("stage", "warmup", *LONG, root=root))
    with on_a_terminal(*command) as terminal:
        terminal.until(partial(reached, terminal, root, "warmup"), "warmup", RUN_S)
        for process in psutil.Process(terminal.process.pid).children(recursive=True):
            with suppress(psutil.Error):
                if any(word.startswith("ray::RayTrainWorker") for word in process.cmdline()):
                    process.kill()
                    break
        terminal.send(signal.SIGTERM)
        assert terminal.wait(GRACE_S) == 143, last_words(terminal, root)
        assert "stopped by SIGTERM: warmup fold1: " in terminal.text
        assert terminal.family() == []
