"""Gangs of real processes without Ray: what one rank of them is, and how it is made to die.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pytest
import torch
import torch.distributed as dist
from torch import nn

from gmp_atl_dist.recipes.retrain import RetrainRecipe
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.training.batches import Batch
from gmp_atl_dist.training.loop import TrainJob, run_training
from gmp_atl_dist.training.recipe import Forward, Losses, Recipe

_GONE_S = 400.0


@dataclass(frozen=True)
class Fault:
    """SIGKILL of ``rank``: at its forward pass of update ``step``, or amid its upload of that step."""

    rank: int
    step: int
    amid: Literal["forward", "upload"] = "forward"


class Witnessed(RetrainRecipe):
    """Notes in the file ``seen`` which utterance every rank has heard at which update.

    Beside it, in ``worlds``, a line with the number of ranks for each start.
    """

    seen: Path
    pause_s = 0.0
    """Before each forward pass, for a test that has to act meanwhile."""

    def build(self) -> nn.Module:
        if dist.get_rank() == 0:
            with self.seen.with_name("worlds").open("a") as file:
                file.write(f"{dist.get_world_size()}\n")
        return super().build()

    def losses(self, forward: Forward, batch: Batch) -> Losses:
        if batch.weight_B.any():
            text = "".join(f"{batch.step} {u.utterance_id}\n" for u in batch.utterances)
            descriptor = os.open(self.seen, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(descriptor, text.encode())  # whole, whatever the others write
            os.close(descriptor)
        time.sleep(self.pause_s)
        return super().losses(forward, batch)


class Rank:
    node = 0

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank, self.world_size = rank, world_size
        self.node_leader = rank == 0

    def report(self, step: int) -> None:
        return None

    def preemption_pending(self) -> bool:
        return False

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        return None


def train_by(job: TrainJob, world_size: int, fault: Fault | None = None) -> list[int]:
    """Exit codes of the ranks, each a process of its own; all of them end."""
    context = _processes()
    with TemporaryDirectory(prefix="gmp-atl-") as folder:
        ranks = [
            context.Process(target=_rank, args=(job, rank, world_size, f"{folder}/group", fault))
            for rank in range(world_size)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(_GONE_S)
        hung = [i for i, process in enumerate(ranks) if process.is_alive()]
        for process in ranks:
            process.kill()
            process.join()
    if hung:
        raise TimeoutError(f"ranks {hung} of {world_size} were still waiting after {_GONE_S:g} s")
    return [process.exitcode or 0 for process in ranks]


@functools.cache
def _processes() -> ForkServerContext:
    """Forked of a server that imports once what would take each of them some seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "deepspeed"])
    here = Path(__file__).parent
    with pytest.MonkeyPatch.context() as patch:
        # It is told of no path but this, and says nothing of what it could not import.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(here), str(here.parent)]))
        patch.setenv("DS_ACCELERATOR", "cpu")
        forkserver.ensure_running()
    return context


def _rank(job: TrainJob, rank: int, world_size: int, group: str, fault: Fault | None) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "DS_ACCELERATOR": "cpu",
    }
    torch.set_num_threads(1)
    if fault is not None and fault.rank == rank:
        _arrange(job.recipe, fault)
    method = f"file://{group}"
    dist.init_process_group("gloo", init_method=method, rank=rank, world_size=world_size)
    run_training(job, Rank(rank, world_size))
    sys.stdout.flush()
    # DeepSpeed's threads would keep an interpreter that has nothing to do any more.
    os._exit(0)


def _arrange(recipe: Recipe, fault: Fault) -> None:
    kind = type(recipe)
    losses, put = kind.losses, Store.put

    def killed_losses(self: Recipe, forward: Forward, batch: Batch) -> Losses:
        if batch.step == fault.step:
            os.kill(os.getpid(), signal.SIGKILL)
        return losses(self, forward, batch)

    def killed_put(self: Store, path: str, data: bytes | memoryview) -> None:
        if path.endswith("_optim_states.pt") and f"/{fault.step:08d}-" in path:
            os.kill(os.getpid(), signal.SIGKILL)
        put(self, path, data)

    if fault.amid == "forward":
        setattr(kind, "losses", killed_losses)  # noqa: B010 (a method, of this process alone)
    else:
        Store.put = killed_put
