"""The lane of a GPU without a GPU: what is fetched is there after the wait only, and copies are counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from gmp_atl_dist.transfers import HostLane, Wait

_NOT_THERE_YET = -7
"""In place of whole numbers that have not been fetched."""


class LateLane(HostLane):
    def __init__(self) -> None:
        self.sent = self.fetched = self.waits = 0
        self.fetched_bytes = 0
        self._late: list[tuple[Tensor, Tensor]] = []

    def send(self, x: Tensor) -> Tensor:
        self.sent += 1
        return x.clone()

    def fetch(self, x: Tensor) -> Tensor:
        self.fetched += 1
        self.fetched_bytes += x.nbytes
        missing = float("nan") if x.is_floating_point() else _NOT_THERE_YET
        self._late.append((torch.full_like(x, missing), x))
        return self._late[-1][0]

    def mark(self) -> Wait:
        late, self._late = self._late, []

        def wait() -> None:
            self.waits += 1
            for fetched, x in late:
                fetched.copy_(x)

        return wait


@contextmanager
def late_lanes() -> Iterator[list[LateLane]]:
    """The two lanes of each ``Forward`` that is made meanwhile."""
    lanes = [LateLane(), LateLane()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gmp_atl_dist.inference.forward.new_lanes", lambda _: lanes)
        yield lanes
