"""Counts what would run on a GPU: dispatched operations that compute, views and allocations left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gmp_atl_dist.audio import SAMPLE_RATE_HZ

_ALLOCATIONS = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided", "detach")
PART_S = 600.0
"""A part of ``extract.part_frames = 30_000``."""


class KernelCounter(TorchDispatchMode):
    """Counts each ATen operation that launches a kernel. One operation is at least one kernel.

    Operations that only make a view or memory launch none. On a GPU some operations launch two or three
    kernels (a large reduction, ``cat`` of many tensors), so the count is a lower bound on both sides of a
    comparison.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    @property
    def kernels(self) -> int:
        return sum(self.counts.values())

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = func.overloadpacket.__name__
        alias = [r.alias_info for r in func._schema.returns]
        is_view = any(a is not None and not a.is_write for a in alias)
        result = func(*args, **(kwargs or {}))
        # reshape, to and contiguous are declared as views, and copy where they must.
        copied = is_view and isinstance(result, Tensor) and not _shares(result, args[0])
        if (not is_view or copied) and name not in _ALLOCATIONS:
            self.counts[name] += 1
        return result


def _shares(result: Tensor, source: object) -> bool:
    return (
        isinstance(source, Tensor)
        and result.untyped_storage().data_ptr() == source.untyped_storage().data_ptr()
    )


def speech_like_samples(total_s: float = PART_S, seed: int = 0) -> list[int]:
    """Numbers of samples of clips with IEMOCAP's spread: 4.5 s on average, 0.6 to 34 s."""
    rng = np.random.default_rng(seed)
    lengths: list[int] = []
    while sum(lengths) < total_s * SAMPLE_RATE_HZ:
        seconds = float(np.clip(rng.lognormal(1.25, 0.7), 0.6, 34.0))
        lengths.append(int(seconds * SAMPLE_RATE_HZ))
    return lengths
