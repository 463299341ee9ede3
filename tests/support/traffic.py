"""Counts what an update would cost a GPU's host: synchronisations and copies, by running it on a CPU.

On a CPU there is one memory, so a value is followed instead: what lies on the "device" is what was sent
there (``tensor.to(device)``), parameters, and everything that is computed from either. Reading such a value
on the host (``item``, ``tolist``, ``bool``, ``nonzero``, ...) waits for the device: a synchronisation.

What runs in C++ is not seen, e.g. inside the backward pass. None of it reads a value on the host.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

_READS = {
    *("item", "tolist", "__bool__", "__float__", "__int__", "__index__", "numpy", "cpu"),
    *("nonzero", "masked_select", "unique", "equal", "is_nonzero", "__contains__"),
}
_MOVES = {"to", "cuda"}


class DeviceTraffic(TorchFunctionMode):
    """Attributes:

    syncs: how often the host waited for a value, by the name of the call.
    sent: copies of a tensor to the device.
    """

    def __init__(self, module: nn.Module | None = None) -> None:
        super().__init__()
        self.syncs: Counter[str] = Counter()
        self.sent = 0
        self._on_device: Any = WeakIdKeyDictionary()
        self._counting = True
        if module is not None:
            self.place(module)

    def place(self, module: nn.Module) -> None:
        """The weights of ``module`` lie on the device."""
        for tensor in [*module.parameters(), *module.buffers()]:
            self._on_device[tensor] = True

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is called inside is followed, and not counted."""
        before, self._counting = self._counting, False
        try:
            yield
        finally:
            self._counting = before

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        result = func(*args, **kwargs)
        there = any(t in self._on_device for t in _tensors([args, kwargs]))
        if name in _MOVES and args and isinstance(args[0], Tensor) and _device_in(args, kwargs):
            if not there:
                self.sent += self._counting
                result = result.view_as(result)  # another tensor, as a copy would be
                self._on_device[result] = True
            return result
        if there and (name in _READS or (name == "__getitem__" and _masked(args))):
            if self._counting:
                self.syncs[name] += 1
            if name in ("numpy", "cpu", "tolist", "item"):
                return result.clone() if isinstance(result, Tensor) else result
        if there:
            for tensor in _tensors([result]):
                self._on_device[tensor] = True
        return result


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values.values() if isinstance(values, Mapping) else values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple | dict):
            yield from _tensors(value)


def _device_in(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    return "device" in kwargs or any(isinstance(a, torch.device) for a in args)


def _masked(args: Sequence[Any]) -> bool:
    """Whether an index is a mask: the number of its elements must be known on the host."""
    index = args[1] if isinstance(args[1], tuple) else (args[1],)
    return any(isinstance(i, Tensor) and i.dtype == torch.bool for i in index)
