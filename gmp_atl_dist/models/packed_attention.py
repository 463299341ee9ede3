"""Attention over packed rows: of each sequence alone, of all in one kernel, or of buckets of equal lengths.

- On a CPU each sequence is one call, so that its bits do not depend on the others.
- On a GPU with flash attention and half precision, one kernel takes all sequences without padding
  (``torch.nn.attention.varlen``).
- On other GPUs sequences of similar lengths share a padded call of at most two minutes. A single padded call
  of all sequences would have several times the frames and more than ten times the scores.

Shapes: M rows of all sequences, D hidden, H heads, B sequences, P rows of all padded buckets, T steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gmp_atl_dist.device import has_flash_attention
from gmp_atl_dist.models.slots import HostPlan

Attention = Callable[[Tensor, int], Tensor]
"""(M, D) from (M, 3 D), which holds queries, keys and values, and the number of heads."""

BUCKET_ROWS = 6000
"""120 s with padding; a single longer sequence is a bucket of its own."""


def each_alone(lengths: Sequence[int]) -> Attention:
    """One call per sequence."""

    def attend(qkv_MX: Tensor, heads: int) -> Tensor:
        context_MD = qkv_MX.new_empty(len(qkv_MX), qkv_MX.shape[1] // 3)
        first = 0
        for count in lengths:
            rows = slice(first, first + count)
            q, k, v = qkv_MX[rows].view(count, 3, heads, -1).permute(1, 2, 0, 3)[:, None]
            attended = F.scaled_dot_product_attention(q, k, v)[0]
            context_MD[rows].view(count, heads, -1).copy_(attended.transpose(0, 1))
            first += count
        return context_MD

    return attend


class PlannedAttention:
    """Attention of all sequences together. What the device must know of them goes into ``plan``.

    Args:
        lengths: of the sequences, whose rows lie one after another.
        plan: is sent before :meth:`receive`.
        flash: take the kernel of variable lengths; None: if this device and this type have it.
        dtype: of queries, keys and values.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        plan: HostPlan,
        *,
        dtype: torch.dtype,
        flash: bool | None = None,
    ) -> None:
        self._flash = has_flash_attention(dtype) if flash is None else flash
        self._longest = max(lengths)
        self._buckets = [] if self._flash else buckets(lengths, BUCKET_ROWS)
        self._dtype = dtype
        counts_B = np.array(lengths, np.int64)
        if self._flash:
            self._ids = (plan.add(np.concatenate([[0], np.cumsum(counts_B)])),)
        else:
            read_P, write_M = _padded_rows(counts_B, self._buckets)
            ordered = counts_B[np.concatenate([b.sequences for b in self._buckets])]
            self._ids = (plan.add(read_P), plan.add(write_M), plan.add(ordered))

    def receive(self, sent: Sequence[Tensor]) -> None:
        """Take the device's copy of the plan."""
        if self._flash:
            (self._ends,) = (sent[i] for i in self._ids)
            return
        self._read_P, self._write_M, lengths_B = (sent[i] for i in self._ids)
        # Added to the scores: 0 on a sequence's own keys. The same for all layers.
        self._masks = [
            None
            if bucket.even
            else torch.where(
                torch.arange(bucket.steps, device=lengths_B.device) < lengths_1[:, None],
                0.0,
                -torch.inf,
            ).to(self._dtype)[:, None, None]
            for bucket, lengths_1 in zip(
                self._buckets,
                lengths_B.split([len(b.sequences) for b in self._buckets]),
                strict=True,
            )
        ]

    def __call__(self, qkv_MX: Tensor, heads: int, dropout: float = 0.0) -> Tensor:
        """``dropout`` of the weights; the kernel of variable lengths has none."""
        if self._flash:
            # Imported here: older versions of PyTorch lack it.
            from torch.nn.attention.varlen import varlen_attn

            q, k, v = qkv_MX.view(len(qkv_MX), 3, heads, -1).unbind(1)
            ends, longest = self._ends, self._longest
            context = varlen_attn(q, k, v, ends, ends, longest, longest)
            assert isinstance(context, Tensor)
            return context.flatten(1)
        padded_PX = qkv_MX.index_select(0, self._read_P)
        outputs: list[Tensor] = []
        sizes = [len(b.sequences) * b.steps for b in self._buckets]
        for bucket, mask, rows in zip(
            self._buckets, self._masks, padded_PX.split(sizes), strict=True
        ):
            shape = (len(bucket.sequences), bucket.steps, 3, heads, -1)
            q, k, v = rows.view(shape).permute(2, 0, 3, 1, 4)
            y_BHTX = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
            outputs.append(y_BHTX.transpose(1, 2).flatten(0, 1).flatten(1))
        y_PD = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return y_PD.index_select(0, self._write_M)


@dataclass(frozen=True)
class Bucket:
    """Sequences, by number, that are padded to the same ``steps``; ``even`` if none needs padding."""

    sequences: np.ndarray
    steps: int
    even: bool


def buckets(lengths: Sequence[int], most_rows: int) -> list[Bucket]:
    """All sequences, the longest first, in buckets of at most ``most_rows`` padded rows."""
    lengths_B = np.array(lengths, np.int64)
    order = np.argsort(-lengths_B, kind="stable")
    found: list[Bucket] = []
    start = 0
    while start < len(order):
        steps = int(lengths_B[order[start]])
        members = order[start : start + max(1, most_rows // steps)]
        found.append(Bucket(members, steps, bool(lengths_B[members[-1]] == steps)))
        start += len(members)
    return found


def _padded_rows(lengths_B: np.ndarray, of: Sequence[Bucket]) -> tuple[np.ndarray, np.ndarray]:
    """The row that each padded row reads (P,), and the padded row of each row (M,).

    Padding reads a sequence's last row: its keys are masked, and its outputs are not read.
    """
    firsts_B = np.cumsum(lengths_B) - lengths_B
    write_M = np.empty(int(lengths_B.sum()), np.int64)
    reads: list[np.ndarray] = []
    padded = 0
    for bucket in of:
        step_T = np.arange(bucket.steps)
        last_1 = lengths_B[bucket.sequences][:, None] - 1
        read_BT = firsts_B[bucket.sequences][:, None] + np.minimum(step_T, last_1)
        own_BT = step_T <= last_1
        write_M[read_BT[own_BT]] = padded + np.flatnonzero(own_BT)
        reads.append(read_BT.ravel())
        padded += read_BT.size
    return np.concatenate(reads), write_M
