"""A training whose passes do not fit into the memory of one of its workers."""

from __future__ import annotations

import torch
from torch import nn

from support.gangs import Witnessed


class Full(Witnessed):
    """The second rank has no memory. Each try is a line in the file ``tries``."""

    def build(self) -> nn.Module:
        model = super().build()
        model.register_forward_pre_hook(self._refuse)
        return model

    def _refuse(self, *_: object) -> None:
        if torch.distributed.get_rank() == 1:
            with self.seen.with_name("tries").open("a") as file:
                file.write("forward\n")
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
