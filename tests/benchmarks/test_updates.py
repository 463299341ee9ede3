"""What is read out of a training's notes: the updates that count, and the recovery after a kill."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.harness.rounds import MeasurementError
from benchmarks.subjects.recovery import Recovery, recovery_of
from benchmarks.subjects.updates import Note, read_notes, updates_between, write_note


def _notes(path: Path, steps: int) -> Path:
    """Two forward passes per update of a second each, a fifth of the samples being padding."""
    lines = [
        f"{step} {step + micro / 2} {2 * step + micro} 16000 20000 7"
        for step in range(steps)
        for micro in range(2)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_whole_updates_count_from_begin_to_begin(tmp_path: Path) -> None:
    updates = updates_between(_notes(tmp_path / "notes", 6), 2, 5)

    assert (updates.audio_s, updates.wall_s, updates.cpu_s) == (6.0, 3.0, 6.0)
    assert updates.useful == pytest.approx(0.8)


@pytest.mark.parametrize(("first", "end"), [(2, 6), (6, 7), (3, 3)])
def test_a_training_that_is_too_short_is_an_error(tmp_path: Path, first: int, end: int) -> None:
    with pytest.raises(MeasurementError, match="raise --updates"):
        updates_between(_notes(tmp_path / "notes", 6), first, end)


def test_a_note_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_notes(tmp_path / "notes") == []
    write_note(tmp_path / "notes", 3, 5, 8)
    (note,) = read_notes(tmp_path / "notes")

    assert (note.step, note.audio_samples, note.padded_samples) == (3, 5, 8)


def _note(step: int, at_s: float, pid: int) -> Note:
    return Note(step, at_s, 0.0, 1, 1, pid)


def test_recovery_ends_with_the_first_update_of_the_new_processes() -> None:
    old = [_note(step, float(step), pid) for step in range(15) for pid in (1, 2)]
    # The worker that was not killed still notes an update; it is not the recovery.
    notes = [*old, _note(15, 15.2, 1), _note(10, 35.0, 3), _note(11, 36.0, 3)]

    assert recovery_of(notes, 14.5) == Recovery(20.5, 4)


def test_recovery_at_a_checkpoint_loses_nothing() -> None:
    notes = [_note(step, float(step), 1) for step in range(11)] + [_note(10, 30.0, 2)]

    assert recovery_of(notes, 10.5).updates_lost == 0


@pytest.mark.parametrize("killed_at_s", [None, 10.5])
def test_a_training_without_a_recovery_is_an_error(killed_at_s: float | None) -> None:
    notes = [_note(step, float(step), 1) for step in range(11)]

    with pytest.raises(MeasurementError, match="recovery-updates"):
        recovery_of(notes, killed_at_s)
