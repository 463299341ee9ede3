"""HuBERT's positional convolution for a GPU: the spectra of ``positional.py`` as three batched products.

The products are in fp16 where the model's are in half precision. fp16 has the mantissa of TF32, and no
setting of the process is needed. Both transforms are scaled by powers of two, so that a spectrum is at most
16 times as large as the values: it overflows only where the hidden states would soon overflow too.

Shapes: M frames of all clips in one row, J blocks, L frames in a block, F frequencies, G groups,
W channels in a group, D hidden. A spectrum's real parts lie before its imaginary ones: 2F.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import HubertModel

from gmp_atl_dist.models.conv_encoder import activation_in_place
from gmp_atl_dist.models.positional import position_weight, spectral_weight, transforms
from gmp_atl_dist.models.slots import HostPlan

_ALIGNED = 4
"""Frequencies in multiples of four: rows of products then begin at multiples of 16 bytes."""


class SlotPositionalConv:
    """``pos_conv_embed`` of packed clips. A frame sees its own clip only.

    Args:
        model: on the device.
        dtype: of the products: fp16 on a GPU with half precision, otherwise float32.
    """

    def __init__(self, model: HubertModel, dtype: torch.dtype) -> None:
        conv = cast(nn.Conv1d, model.encoder.pos_conv_embed.conv)
        weight_DWL, device = position_weight(conv), conv.weight.device
        self._dtype = dtype
        self._bias_D = cast(Tensor, conv.bias).detach().float()
        self._groups = conv.groups
        self._taps = weight_DWL.shape[2]
        self._block = 2 * self._taps
        self._whole = self._block - self._taps + 1
        self._activation = activation_in_place(model.config.feat_extract_activation)
        into_FL, back_LF = (
            torch.from_numpy(x).float() for x in transforms(self._block, self._whole)
        )
        frequencies = len(into_FL) // 2
        spare = -frequencies % _ALIGNED
        scale = 2.0 ** -round(np.log2(self._block) / 2)
        into_FL = F.pad(into_FL.view(2, frequencies, -1), (0, 0, 0, spare)).flatten(0, 1) * scale
        back_LF = F.pad(back_LF.view(-1, 2, frequencies), (0, spare)).flatten(1) / scale
        weight = torch.from_numpy(spectral_weight(weight_DWL, self._groups, self._block))
        weight = F.pad(weight, (0, 0, 0, 0, 0, spare * self._groups))
        self._into_FL, self._back_LF, self._weight = (
            x.to(device, dtype) for x in (into_FL, back_LF, weight)
        )

    def plan(self, counts_B: np.ndarray, plan: HostPlan) -> tuple[int, int]:
        """Add the rows that each block reads, and the row of the output for each frame."""
        before, whole = self._taps // 2, self._whole
        blocks_B = -(-counts_B // whole)
        firsts_B = np.cumsum(counts_B) - counts_B
        clip_J = np.repeat(np.arange(len(counts_B)), blocks_B)
        within_J = np.arange(len(clip_J)) - (np.cumsum(blocks_B) - blocks_B)[clip_J]
        frame_JL = (within_J * whole - before)[:, None] + np.arange(self._block)
        inside_JL = (frame_JL >= 0) & (frame_JL < counts_B[clip_J][:, None])
        # The row after the last one stands for zeros.
        read_JL = np.where(inside_JL, frame_JL + firsts_B[clip_J][:, None], int(counts_B.sum()))
        clip_M = np.repeat(np.arange(len(counts_B)), counts_B)
        frame_M = np.arange(len(clip_M)) - firsts_B[clip_M]
        # Clips begin with a block of their own, and blocks of a clip follow each other.
        write_M = (np.cumsum(blocks_B) - blocks_B)[clip_M] * whole + frame_M
        return plan.add(read_JL), plan.add(write_M)

    def __call__(self, x_MD: Tensor, ids: tuple[int, int], sent: Sequence[Tensor]) -> Tensor:
        """The term to add to ``x_MD`` (float32), which holds the frames of all clips one after another."""
        read_JL, write_M = (sent[i] for i in ids)
        blocks, dim = len(read_JL), x_MD.shape[1]
        padded_MD = F.pad(x_MD, (0, 0, 0, 1)).to(self._dtype)
        x_JLD = padded_MD.index_select(0, read_JL.flatten()).view(blocks, -1, dim)
        spectrum_JFD = self._into_FL @ x_JLD
        # From (2, F, G, W) per block to one row of 2W per block, frequency and group.
        parts = spectrum_JFD.view(blocks, 2, -1, self._groups, dim // self._groups)
        rows = parts.permute(2, 3, 0, 1, 4).reshape(len(self._weight), blocks, -1)
        product = torch.bmm(rows, self._weight).view(
            -1, self._groups, blocks, 2, dim // self._groups
        )
        product_JFD = product.permute(2, 3, 0, 1, 4).reshape(blocks, -1, dim)
        y_MD = (self._back_LF @ product_JFD).flatten(0, 1).index_select(0, write_M)
        return self._activation(y_MD + self._bias_D)
