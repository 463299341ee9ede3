"""The part of ``benchmarks.train`` that kills a worker of a gang of Ray."""

from __future__ import annotations

import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.harness.processes import descendants
from benchmarks.harness.rounds import MeasurementError
from benchmarks.inputs.speech import Speech
from benchmarks.subjects.training_inputs import RANKS, retrain_recipe
from benchmarks.subjects.updates import Note, read_notes
from gmp_atl_dist import runtime
from gmp_atl_dist.config import TrainWorkersConfig
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.training.loop import TrainJob, run_training

CHECKPOINT_EVERY = 5
_KILL_AT = 3 * CHECKPOINT_EVERY - 1
_POLL_S = 0.01
_WORKER_TITLE = "ray::RayTrainWorker"


@dataclass(frozen=True)
class Recovery:
    """Seconds from SIGKILL to the next update, and how many updates were taken again."""

    seconds: float
    updates_lost: int


def recover(root: str, batch_s: float, steps: int) -> Recovery:
    """Train ``steps`` updates on a Ray of its own, and kill a worker after two checkpoints.

    Raises:
        MeasurementError: the training ended before a worker was killed.
    """
    speech = Speech.at(root)
    with tempfile.TemporaryDirectory(prefix="gmp-atl-bench-") as folder:
        notes = Path(folder) / "notes"
        recipe = retrain_recipe(root, notes, steps, batch_s)
        store = Store.open(f"{folder}/out")
        workers = TrainWorkersConfig(workers=RANKS, checkpoint_every_steps=CHECKPOINT_EVERY)
        job = TrainJob(recipe, store, ArtifactKey("retrain", "3" * 64), workers)
        killer = _Killer(notes)
        with speech.context.connection:
            speech.context.connection.open()
            killer.start()
            runtime.train(run_training, job, name=job.key.fingerprint, store=store, config=workers)
        killer.stop()
        return recovery_of(read_notes(notes), killer.killed_at_s)


class _Killer(threading.Thread):
    """Kills one worker of the gang when the update before the third checkpoint is begun."""

    def __init__(self, notes: Path) -> None:
        super().__init__(daemon=True)
        self._notes = notes
        self._ended = threading.Event()
        self.killed_at_s: float | None = None

    def run(self) -> None:
        while not self._ended.wait(_POLL_S):
            if not any(note.step >= _KILL_AT for note in read_notes(self._notes)):
                continue
            worker = next((p for p in descendants() if _is_train_worker(p)), None)
            if worker is not None:
                self.killed_at_s = time.time()
                worker.kill()
            return

    def stop(self) -> None:
        """The training has ended, whatever it did."""
        self._ended.set()
        self.join()


def _is_train_worker(process: psutil.Process) -> bool:
    try:
        words = process.cmdline()
    except psutil.NoSuchProcess:
        return False
    return bool(words) and words[0].startswith(_WORKER_TITLE)


def recovery_of(notes: list[Note], killed_at_s: float | None) -> Recovery:
    """From SIGKILL to the first update of the new processes, and how far that is behind the old ones.

    Raises:
        MeasurementError: no worker was killed, or no update followed.
    """
    if killed_at_s is None:
        raise MeasurementError(
            "the training ended before a worker was killed; raise --recovery-updates"
        )
    before = [note for note in notes if note.at_s <= killed_at_s]
    pids = {note.pid for note in before}
    resumed = next((n for n in notes if n.at_s > killed_at_s and n.pid not in pids), None)
    if resumed is None:
        raise MeasurementError("no update followed the SIGKILL; raise --recovery-updates")
    lost = max(note.step for note in before) - resumed.step
    return Recovery(resumed.at_s - killed_at_s, lost)
