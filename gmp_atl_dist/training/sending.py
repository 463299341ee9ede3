"""The next pass is on the device before it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import fields, replace

import torch
from torch import Tensor

from gmp_atl_dist.training.batches import Batch
from gmp_atl_dist.transfers import CopyLane, new_lanes

Counts = tuple[float, ...]


class Pass:
    """A micro-batch of this rank: on the host, and on the device once it was sent.

    Attributes:
        batch: on the host.
    """

    def __init__(self, batch: Batch, lane: CopyLane, device: torch.device) -> None:
        self.batch = batch
        self._lane = lane
        self._device = device
        self._sent: Batch | None = None

    def of(self, batch: Batch) -> Pass:
        """Another pass on the same way, e.g. half of this one."""
        return Pass(batch, self._lane, self._device)

    def send(self) -> None:
        """Start the copy to the device, on a stream of its own. The host does not wait for it."""
        if self._sent is None:
            held = _tensors(self.batch)
            pinned = replace(self.batch, **{n: self._lane.pin(x) for n, x in held.items()})
            with self._lane.working():
                self._sent = pinned.to(self._device)

    def take(self) -> Batch:
        """The batch on the device, for the stream of the caller. This object keeps nothing of it."""
        self.send()
        sent, self._sent = self._sent, None
        if sent is None:
            raise RuntimeError("a pass was taken that was not sent")
        self._lane.hand_over(x for x in _tensors(sent).values() if x.device.type != "cpu")
        return sent


class Update:
    """The passes of one update, and what this rank adds to the divisors of its loss.

    Attributes:
        step: its number, from 0.
        passes: of this rank.
        counts: the sum over the passes of each term's count.
    """

    def __init__(self, step: int, passes: list[Pass], counts: list[float]) -> None:
        self.step = step
        self.passes = passes
        self.counts = counts


class Ahead:
    """Updates in their order. The one after the current one is prepared while the device is busy.

    Args:
        updates: (number, micro-batches on the host), as the loader yields them.
        counts: what a micro-batch adds to the divisor of each term.
        device: where the passes are computed.
        waiting: the time within the block was spent waiting for data.
    """

    def __init__(
        self,
        updates: Iterator[tuple[int, list[Batch]]],
        counts: Callable[[Batch], Counts],
        device: torch.device,
        waiting: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._updates = updates
        self._counts = counts
        self._device = device
        self._waiting = waiting
        (self._lane,) = new_lanes(1)
        self._next: Update | None = None

    def next(self) -> Update | None:
        """The next update; None after the last one."""
        self.prepare()
        found, self._next = self._next, None
        return found

    def prepare(self) -> None:
        """Have the next update ready, and its first pass on its way. It may have been called before."""
        if self._next is not None:
            return
        with self._waiting():
            read = next(self._updates, None)
        if read is None:
            return
        step, batches = read
        passes = [Pass(batch, self._lane, self._device) for batch in batches]
        passes[0].send()
        self._next = Update(step, passes, _summed([self._counts(batch) for batch in batches]))


def _summed(counts: list[Counts]) -> list[float]:
    return torch.tensor(counts, dtype=torch.float64).sum(dim=0).tolist()


def _tensors(batch: Batch) -> dict[str, Tensor]:
    found = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}
