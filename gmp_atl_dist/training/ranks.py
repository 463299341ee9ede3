"""What the ranks of a training agree on: sums of host values, and what to do before the next update.

All of it goes over gloo, from host to host. A collective of NCCL is queued behind the work of the GPU, so
its result would be there only when the GPU has nothing left to do. On a CPU the default group is gloo's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from gmp_atl_dist.errors import WorkerError
from gmp_atl_dist.runtime.work import Gang
from gmp_atl_dist.store.checkpoints import Checkpoints
from gmp_atl_dist.training.timing import Interval

_TIMED_OUT = re.compile(r"timed out", re.IGNORECASE)
_STOP_POLL_S = 1.0
_PREEMPTION_POLL_S = 5.0


@contextmanager
def in_time(what: str, gang: Gang, timeout_s: float) -> Iterator[None]:
    """Name a collective that another rank has not come to, within this block.

    With gloo, PyTorch raises a bare ``RuntimeError`` after the time limit of the process group, which names
    a line of C++. NCCL's watchdog ends the process instead.

    Raises:
        WorkerError: this rank has waited for another one for ``timeout_s``.
    """
    try:
        yield
    except RuntimeError as e:
        if not _TIMED_OUT.search(str(e)):
            raise
        raise WorkerError(
            f"{what}: worker {gang.rank} has waited {timeout_s:g} s for the other {gang.world_size - 1} "
            f"(runtime.train.collective_timeout_s): one of them hangs, its node cannot be reached, or it "
            f"stores files more slowly than that; look at the workers' output, or raise the key"
        ) from e


class HostGroup:
    """Collectives of values on the host. Every rank must make the same calls in the same order."""

    def __init__(self, timeout_s: float) -> None:
        """Every rank must call it. A rank that waits longer than ``timeout_s`` for the others gives up."""
        self._group: dist.ProcessGroup | None = None
        if dist.get_backend() != "gloo":
            made = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))
            if isinstance(made, dist.ProcessGroup):
                self._group = made

    def sums(self, values: Sequence[float]) -> list[float]:
        """The sum over ranks of each value, in fp64."""
        summed = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(summed, group=self._group)
        return summed.tolist()

    def least(self, value: float) -> float:
        """The smallest of the ranks' values."""
        held = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(held, op=dist.ReduceOp.MIN, group=self._group)
        return float(held)

    def first_text(self, text: str) -> str:
        """The text of the first rank that has one; empty if none has."""
        said: list[str | None] = [None] * dist.get_world_size()
        dist.all_gather_object(said, text, group=self._group)
        return next((s for s in said if s), "")


@dataclass(frozen=True)
class Agreed:
    """What all ranks know before an update.

    Attributes:
        counts: the divisor of each term of the loss.
        uploaded: every rank has uploaded its share of the running checkpoint.
        save: a checkpoint is to be saved before the update.
        stop: the gang shall save a checkpoint and stop after it.
    """

    counts: list[float]
    uploaded: bool
    save: bool
    stop: bool


class Agreement:
    """The one exchange per update: the losses' divisors, who has uploaded, whether to save or stop.

    The first rank asks the store, the cluster and the clock; the others hear of it.
    """

    def __init__(
        self, group: HostGroup, gang: Gang, checkpoints: Checkpoints, save_interval: Interval
    ) -> None:
        self._group = group
        self._gang = gang
        self._checkpoints = checkpoints
        self._save_interval = save_interval
        self._stop_poll = Interval(_STOP_POLL_S)
        self._preemption_poll = Interval(_PREEMPTION_POLL_S)
        self._preempted = False

    def exchange(self, counts: Sequence[float], *, uploaded: bool) -> Agreed:
        """``counts`` and ``uploaded`` are this rank's. Every rank must call it at the same update."""
        first = self._gang.rank == 0
        stop = first and self._poll_stop()
        poll = first and self._preemption_poll.due
        save = first and self._save_interval.due
        flags = [float(uploaded), float(stop), float(poll), float(save)]
        *summed, uploads, stopping, polling, saving = self._group.sums([*counts, *flags])
        preempted = polling > 0 and self._poll_preemption()
        return Agreed(
            counts=summed,
            uploaded=uploads == self._gang.world_size,
            save=saving > 0 or preempted,
            stop=stopping > 0,
        )

    def _poll_stop(self) -> bool:
        """Look for a stop request in the store, at most once per interval."""
        if not self._stop_poll.due:
            return False
        self._stop_poll.restart()
        return self._checkpoints.stop_requested()

    def _poll_preemption(self) -> bool:
        """Whether a machine was announced to go away, the first time that it is seen.

        A checkpoint is saved then. Training continues until the machine is gone and the gang restarts.
        """
        self._preemption_poll.restart()
        if self._preempted or not self._gang.preemption_pending():
            return False
        self._preempted = True
        return True
