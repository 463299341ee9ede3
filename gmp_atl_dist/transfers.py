"""Lanes: copies between host and device, and work that overlaps with them; the same calls on a CPU.

A lane of a GPU is a stream. Host memory of a lane is pinned, so copies in both directions are asynchronous.
Work of two lanes overlaps. On a CPU a lane copies nothing, and all work is done at once.

Only this module knows streams, events and pinned memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from gmp_atl_dist.device import has_gpu, torch_device

Wait = Callable[[], object]
"""Returns when the work that was started before it was made is done. Any thread may call it."""


class CopyLane(Protocol):
    """Work on a device, in the order in which it is started."""

    def working(self) -> AbstractContextManager[object]:
        """Everything that is started inside belongs to this lane."""
        ...

    def host(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """Uninitialized memory of the host that can be sent."""
        ...

    def send(self, x: Tensor) -> Tensor:
        """``x``, from :meth:`host`, on the device: one copy. Do not write to ``x`` afterwards."""
        ...

    def fetch(self, x: Tensor) -> Tensor:
        """``x`` on the host: one copy. Its values are there after :meth:`mark`'s wait."""
        ...

    def mark(self) -> Wait:
        """Waits for everything that was started on this lane until now."""
        ...

    def pin(self, x: Tensor) -> Tensor:
        """``x``, of the host, in memory from which a copy is asynchronous."""
        ...

    def hand_over(self, tensors: Iterable[Tensor]) -> None:
        """Give ``tensors``, made on this lane, to the stream of the caller. The host does not wait."""
        ...


def new_lanes(count: int) -> tuple[CopyLane, ...]:
    """``count`` lanes of this process's device."""
    return tuple(_GpuLane() if has_gpu() else HostLane() for _ in range(count))


def current_lane() -> CopyLane:
    """A lane of the stream on which the caller works."""
    return _GpuLane(torch.cuda.current_stream()) if has_gpu() else HostLane()


def send_array(lane: CopyLane, x: np.ndarray) -> Tensor:
    """A copy of ``x`` on the device."""
    staged = lane.host(*x.shape, dtype=torch.from_numpy(x[:0]).dtype)
    staged.numpy()[...] = x
    return lane.send(staged)


class HostLane:
    """Of a CPU: the device's memory is the host's."""

    def working(self) -> AbstractContextManager[object]:
        return nullcontext()

    def host(self, *shape: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype)

    def send(self, x: Tensor) -> Tensor:
        return x

    def fetch(self, x: Tensor) -> Tensor:
        return x

    def mark(self) -> Wait:
        return _done

    def pin(self, x: Tensor) -> Tensor:
        return x

    def hand_over(self, tensors: Iterable[Tensor]) -> None:
        return None


def _done() -> None:
    """Work on a CPU is done when it returns."""


class _GpuLane:
    def __init__(self, stream: torch.cuda.Stream | None = None) -> None:
        self._stream = torch.cuda.Stream() if stream is None else stream
        if stream is None:
            # The model's weights were copied on the stream that was current until now.
            self._stream.wait_stream(torch.cuda.current_stream())

    def working(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._stream)

    def host(self, *shape: int, dtype: torch.dtype) -> Tensor:
        # PyTorch keeps pinned memory for later, and reuses it only when the copies from it are done.
        return torch.empty(shape, dtype=dtype, pin_memory=True)

    def send(self, x: Tensor) -> Tensor:
        with self.working():
            return x.to(torch_device(), non_blocking=True)

    def fetch(self, x: Tensor) -> Tensor:
        fetched = self.host(*x.shape, dtype=x.dtype)
        with self.working():
            return fetched.copy_(x, non_blocking=True)

    def mark(self) -> Wait:
        # Blocking: a thread that waits leaves the core to the others.
        event = torch.cuda.Event(blocking=True)
        event.record(self._stream)
        return event.synchronize

    def pin(self, x: Tensor) -> Tensor:
        return x.pin_memory()

    def hand_over(self, tensors: Iterable[Tensor]) -> None:
        stream = torch.cuda.current_stream()
        stream.wait_stream(self._stream)
        for tensor in tensors:
            # The allocator may reuse their memory only when the caller's stream is done with it too.
            tensor.record_stream(stream)
