"""Random weights that follow a seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random weights made inside follow ``seed``. The global random state is the same after as before."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: it would seed the GPUs too, whose state is not put back.
        torch.default_generator.manual_seed(seed)
        yield
