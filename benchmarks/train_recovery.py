"""The part of ``benchmarks.train`` that kills a worker of a gang of Ray."""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path

import psutil

from benchmarks.speech import context_at
from benchmarks.train_inputs import RANKS, retrain_recipe
from gmp_atl_dist import runtime
from gmp_atl_dist.config import TrainWorkersConfig
from gmp_atl_dist.store.artifact import ArtifactKey
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.training.loop import TrainJob, run_training


def recovery(corpus: str, root: str) -> dict[str, float]:
    """Seconds from SIGKILL of a worker to the next update, and what is done again."""
    context, _, _ = context_at(corpus, root)
    with tempfile.TemporaryDirectory(prefix="gmp-atl-bench-") as folder:
        notes, every = Path(folder) / "notes", 5
        recipe = retrain_recipe(corpus, root, notes, 30)
        store = Store.open(f"{folder}/out")
        workers = TrainWorkersConfig(workers=RANKS, checkpoint_every_steps=every)
        job = TrainJob(recipe, store, ArtifactKey("retrain", "3" * 64), workers)
        killed: dict[str, float] = {}

        def kill() -> None:
            while _last_step(notes) < 3 * every - 1:
                time.sleep(0.05)
            worker = next(
                p
                for p in psutil.Process().children(recursive=True)
                if p.cmdline() and p.cmdline()[0].startswith("ray::RayTrainWorker")
            )
            killed.update(at_s=time.time(), step=_last_step(notes))
            worker.kill()

        thread = threading.Thread(target=kill, daemon=True)
        with context.cluster:
            context.cluster.open()
            thread.start()
            runtime.train(run_training, job, name=job.key.fingerprint, store=store, config=workers)
        thread.join()
        rows = [line.split() for line in notes.read_text().splitlines()]
    again = next(
        r for r in rows if float(r[1]) > killed["at_s"] + 1 and int(r[0]) <= killed["step"]
    )
    recovery_s, lost = float(again[1]) - killed["at_s"], int(killed["step"]) - int(again[0])
    print(
        f"\nSIGKILL of one of {RANKS} workers: {recovery_s:.1f} s to the next update, {lost} updates "
        f"are taken again with a checkpoint every {every}"
    )
    return {"recovery_s": round(recovery_s, 2), "updates_lost": lost}


def _last_step(notes: Path) -> int:
    lines = notes.read_text().splitlines() if notes.exists() else []
    return int(lines[-1].split()[0]) if lines else -1
