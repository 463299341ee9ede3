"""Frames that stay on devices between assignment steps, as far as their memory allows.

Shape suffixes: M frames, D hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from gmp_atl_dist.clustering.device import Copier, free_bytes
from gmp_atl_dist.clustering.fixed_point import fraction_bits
from gmp_atl_dist.clustering.frame_parts import FramePart


@dataclass(frozen=True)
class Block:
    """Frames of one part and group, in a piece that an engine is given at once. ``copier`` is its device.

    ``first_row`` is the row of its first frame in the part's group, ``bits`` those of
    :func:`gmp_atl_dist.clustering.fixed_point.fraction_bits` for the Euclidean metric.
    """

    group: str
    first_row: int
    x_MD: np.ndarray | torch.Tensor
    copier: Copier
    bits: int

    @property
    def num_bytes(self) -> int:
        return self.x_MD.nbytes

    def copied(self) -> Block:
        """The block with its frames on its device."""
        if isinstance(self.x_MD, torch.Tensor):
            return self
        return replace(self, x_MD=self.copier.to_device(self.x_MD))


@dataclass
class DeviceFrames:
    """The blocks of parts, on devices in turn. Parts read first stay there, as many as there is room for.

    ``room`` is how many bytes a device has for more frames.
    """

    copiers: Sequence[Copier]
    block_rows: int
    room: Callable[[torch.device], int] = free_bytes
    _kept: dict[str, list[Block]] = field(default_factory=dict)
    _next_copier: int = 0

    def clear(self) -> None:
        self._kept.clear()

    def blocks(self, part: FramePart, working_bytes: int) -> Sequence[Block]:
        """The blocks of a part, on devices or on the host; ``working_bytes`` are needed beside them."""
        if (kept := self._kept.get(part.key)) is not None:
            return kept
        blocks: list[Block] = []
        for group, x_MD in part.load().items():
            bits = fraction_bits(x_MD, "euclidean")
            for row in range(0, len(x_MD), self.block_rows):
                copier = self.copiers[self._next_copier % len(self.copiers)]
                self._next_copier += 1
                blocks.append(Block(group, row, x_MD[row : row + self.block_rows], copier, bits))
        if not self._has_room(blocks, working_bytes):
            return blocks
        try:
            kept = [block.copied() for block in blocks]
        except torch.OutOfMemoryError:
            # Somebody else has taken the memory since. These frames are copied in each assignment step.
            return blocks
        self._kept[part.key] = kept
        part.forget()
        return kept

    def _has_room(self, blocks: Sequence[Block], working_bytes: int) -> bool:
        needed: dict[Copier, int] = {}
        for block in blocks:
            needed[block.copier] = needed.get(block.copier, working_bytes) + block.num_bytes
        return all(self.room(copier.device) >= num_bytes for copier, num_bytes in needed.items())
