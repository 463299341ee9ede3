"""Ctrl-C, SIGTERM and SIGHUP on a real terminal: the mechanism itself. Stages: test_stopped_stages.py."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from pathlib import Path

import pytest
from support.terminal import Terminal, on_a_terminal

from gmp_atl_dist import stopping
from gmp_atl_dist.errors import StoppedError

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
# A command that works in C, in the main thread, without looking at signals, and has children.
WORK = """
import hashlib, os, subprocess, sys, time
from gmp_atl_dist import stopping

def said(text):
    print(text, flush=True)

how = sys.argv[1]
child = subprocess.Popen(["sleep", "600"])
with stopping.stoppable(said):
    try:
        if how == "busy":
            said("started")
            # A function in C that does not look at signals, and lets other threads work.
            hashlib.pbkdf2_hmac("sha256", b"a", b"b", 4_000_000)
        elif how == "deferred":
            with stopping.deferred("saving a checkpoint"):
                # As ray.init and Ray Train do.
                import signal
                signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))
                signal.signal(signal.SIGINT, lambda *_: said("a handler of Ray's"))
                said("started")
                while stopping.requested() is None:
                    time.sleep(0.01)
                time.sleep(float(sys.argv[2]))
                if "SAVED" in os.environ:
                    open(os.environ["SAVED"], "w").close()
                    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                said("saved")
            stopping.check()
        else:
            said("started")
            time.sleep(600)
        said("not reached")
    except KeyboardInterrupt:
        said("interrupted")
        child.kill()
        sys.exit(128 + stopping.requested())
"""


@pytest.fixture
def work(tmp_path: Path) -> str:
    script = tmp_path / "work.py"
    script.write_text(WORK)
    return str(script)


def started(terminal: Terminal) -> None:
    terminal.until(lambda: terminal.shown_at("started"), "its start", 60)


@pytest.mark.parametrize("signum", CODES, ids=lambda s: s.name)
def test_each_signal_interrupts_with_a_line_and_its_exit_code(
    work: str, signum: signal.Signals
) -> None:
    with on_a_terminal(work, "waiting") as terminal:
        started(terminal)
        if signum == signal.SIGINT:
            terminal.press_ctrl_c()
        else:
            terminal.send(signum)
        assert terminal.wait(30) == CODES[signum]
    name = "" if signum == signal.SIGINT else f" ({signum.name})"
    assert f"stopping{name}; press Ctrl-C again to end at once" in terminal.text
    assert terminal.text.count("stopping") == 1
    assert "interrupted" in terminal.text
    assert "not reached" not in terminal.text


def test_the_line_comes_while_a_library_does_not_let_go(work: str) -> None:
    with on_a_terminal(work, "busy") as terminal:
        started(terminal)
        pressed_s = terminal.press_ctrl_c()
        shown_s = terminal.until(lambda: terminal.shown_at("stopping; press"), "the line", 30)
        assert shown_s - pressed_s < 2
        assert "interrupted" not in terminal.text
        time.sleep(2 * stopping._SAME_PRESS_S)
        terminal.press_ctrl_c()
        assert terminal.wait(30) == 130
    assert "interrupted" not in terminal.text, "the second one waits for nothing"


@pytest.mark.parametrize("signum", CODES, ids=lambda s: s.name)
def test_what_must_not_be_interrupted_is_finished_whatever_handlers_libraries_install(
    work: str, signum: signal.Signals
) -> None:
    with on_a_terminal(work, "deferred", "0.2") as terminal:
        started(terminal)
        terminal.send(signum)
        assert terminal.wait(30) == CODES[signum]
    assert ": saving a checkpoint; press Ctrl-C again to end at once" in terminal.text
    assert "Ray's" not in terminal.text
    assert "saved" in terminal.text


def test_a_second_ctrl_c_leaves_no_child_behind(work: str) -> None:
    with on_a_terminal(work, "deferred", "600") as terminal:
        started(terminal)
        assert len(terminal.family()) == 2
        terminal.press_ctrl_c()
        terminal.until(lambda: terminal.shown_at("stopping: saving"), "the line", 30)
        time.sleep(2 * stopping._SAME_PRESS_S)
        terminal.press_ctrl_c()
        assert terminal.wait(30) == 130
        assert terminal.family() == []
    assert "saved" not in terminal.text
    assert "ended at once" in terminal.text


def test_other_signals_after_the_first_end_nothing_early(work: str) -> None:
    """A terminal's window that is closed sends SIGHUP twice; a supervisor may add SIGTERM."""
    with on_a_terminal(work, "deferred", "0.5") as terminal:
        started(terminal)
        terminal.send(signal.SIGHUP)
        terminal.until(lambda: terminal.shown_at("stopping"), "the line", 30)
        terminal.send(signal.SIGHUP)
        assert terminal.wait(30) == 129
    assert "saved" in terminal.text


def test_a_window_that_is_closed_is_a_stop_too(work: str, tmp_path: Path) -> None:
    with on_a_terminal(work, "deferred", "0.2", env={"SAVED": str(tmp_path / "saved")}) as terminal:
        started(terminal)
        terminal.hang_up()
        assert terminal.wait(30) == 129
        assert (tmp_path / "saved").exists()


def test_nohup_stays_in_force(work: str) -> None:
    nohup = "import signal, runpy, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
    nohup += f"sys.argv = ['work', 'deferred', '0.1']; runpy.run_path({work!r})"
    with on_a_terminal("-c", nohup) as terminal:
        started(terminal)
        terminal.send(signal.SIGHUP)
        time.sleep(0.2)
        assert "stopping" not in terminal.text
        terminal.send(signal.SIGTERM)
        assert terminal.wait(30) == 143


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(signum) for signum in stopping.SIGNALS]
    with stopping.stoppable(print):
        assert stopping.requested() is None
        with stopping.deferred():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.kill(os.getpid(), signal.SIGWINCH)  # not ours
        stopping.check()
    assert [signal.getsignal(signum) for signum in stopping.SIGNALS] == before
    assert stopping.requested() is None


def test_another_thread_owns_no_signals() -> None:
    def work() -> None:
        with stopping.stoppable(print), stopping.deferred("x"):
            found.append(signal.getsignal(signal.SIGTERM))

    found: list[object] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]


def test_the_error_of_a_stop_keeps_its_code_between_processes() -> None:
    error = stopping.stopped(signal.SIGINT, "a.wav is kept")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, StoppedError)
    assert (again.exit_code, str(again)) == (130, "stopped by Ctrl-C: a.wav is kept")


def test_a_signal_that_ray_passes_on_is_not_called_sigterm(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    state = stopping.Stopping(lines.append, lambda: None)
    monkeypatch.setenv(stopping.PASSED_ON, "1")
    state.noticed(signal.SIGTERM)
    assert lines == ["stopping; press Ctrl-C again to end at once"]
    stopped = stopping.stopped(signal.SIGTERM, "a.wav is kept")
    assert str(stopped) == "stopped by the process that started the job: a.wav is kept"
    monkeypatch.delenv(stopping.PASSED_ON)
    assert stopping.called(signal.SIGTERM) == "SIGTERM"
