"""What training computes on a GPU: all clips of a pass in few kernels, dropout by torch's random state.

What the device must know of the clips is sent as one copy. Attention is that of extraction
(``packed_attention.py``). The kernel of variable lengths has no dropout, so attention with dropout takes
buckets of similar lengths. The convolutions are cuDNN's, over clips that are padded to the longest of the
pass; nothing else is padded.

Shapes: B clips, T frames of the longest, M frames of all clips in one row, P = B x T padded rows, D any
width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import HubertModel

from gmp_atl_dist.models.packed_attention import PlannedAttention
from gmp_atl_dist.models.packing import Packing
from gmp_atl_dist.models.slots import HostPlan
from gmp_atl_dist.transfers import current_lane


class PassOps:
    """The ``LayerOps`` of a GPU.

    Args:
        packing: of the clips.
        dtype: of queries, keys and values.
        drops: whether attention has dropout.
    """

    uses_random_state = True

    def __init__(self, packing: Packing, dtype: torch.dtype, *, drops: bool) -> None:
        counts_B = np.array(packing.num_frames)
        own_BT = np.arange(counts_B.max()) < counts_B[:, None]
        read_P = np.full(own_BT.size, packing.total)
        read_P[own_BT.ravel()] = np.arange(packing.total)
        plan = HostPlan()
        ids = plan.add(np.flatnonzero(own_BT)), plan.add(read_P)
        flash = False if drops else None
        self._attention = PlannedAttention(packing.num_frames, plan, dtype=dtype, flash=flash)
        sent = plan.send(current_lane())
        self._write_M, self._read_P = (sent[i] for i in ids)
        self._attention.receive(sent)
        self._shape = own_BT.shape

    def rows(self, x_BTD: Tensor) -> Tensor:
        """(M, D): the clips' own frames."""
        return x_BTD.flatten(0, 1).index_select(0, self._write_M)

    def positions(self, model: HubertModel, x_MD: Tensor) -> Tensor:
        x_PD = torch.cat([x_MD, x_MD.new_zeros(1, x_MD.shape[1])]).index_select(0, self._read_P)
        return self.rows(model.encoder.pos_conv_embed(x_PD.view(*self._shape, -1)))

    def attend(self, qkv_MX: Tensor, heads: int, place: int, p: float) -> Tensor:
        return self._attention(qkv_MX, heads, p)

    def feed_forward(self, feed: Any, x_MD: Tensor, place: int, p: float) -> Tensor:
        return feed.output_dense(self.drop(F.gelu(feed.intermediate_dense(x_MD)), place, p))

    def drop(self, x_MD: Tensor, place: int, p: float) -> Tensor:
        return F.dropout(x_MD, p)

    def add(self, x_MD: Tensor, y_MD: Tensor, place: int, p: float) -> Tensor:
        return x_MD + F.dropout(y_MD, p)
