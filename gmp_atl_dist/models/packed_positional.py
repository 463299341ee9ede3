"""HuBERT's positional convolution over packed clips, with gradients.

The function and the blocks of spectra are those of ``positional.py``. All steps are matrix products that
autograd knows, the Fourier transform of the weights among them.

Shapes: M frames of all clips in one row, J blocks, L frames in a block, F frequencies, G groups, W channels
in a group, K taps, D hidden. A spectrum's real parts lie before its imaginary ones: 2F.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import HubertModel

from gmp_atl_dist.models.positional import block_rows, transforms


def packed_positions(model: HubertModel, x_MD: Tensor, num_frames: Sequence[int]) -> Tensor:
    """(M, D): the term to add to ``x_MD``. The activation of the model is GELU."""
    conv = cast(Any, model.encoder.pos_conv_embed.conv)
    weight_DWK: Tensor = conv.weight
    groups, taps, dim = conv.groups, weight_DWK.shape[2], x_MD.shape[1]
    block, whole = 2 * taps, taps + 1
    into_FL, back_LF = (torch.from_numpy(x).to(x_MD) for x in _transforms(block, whole))
    read, write = (
        torch.from_numpy(x).to(x_MD.device) for x in block_rows(num_frames, taps, block, whole)
    )
    blocks, frequencies = len(read), len(into_FL) // 2
    x_JLD = torch.cat([x_MD, x_MD.new_zeros(1, dim)])[read]
    spectrum_JFD = torch.matmul(into_FL, x_JLD)
    # Of each frequency and group, the real parts of all blocks and then the imaginary ones: (F x G, 2J, W).
    parts = spectrum_JFD.view(blocks, 2, frequencies, groups, -1).permute(2, 3, 1, 0, 4)
    parts = parts.reshape(frequencies * groups, 2 * blocks, -1).transpose(1, 2)
    # The weights are on the left, so that their gradients need no other order in memory.
    weight = into_FL[:, :taps] @ weight_DWK.view(-1, taps).t()
    weight = weight.view(2, frequencies * groups, dim // groups, -1)
    real, imaginary = torch.bmm(weight[0], parts), torch.bmm(weight[1], parts)
    # A convolution layer correlates: the product with the conjugate of the weight's spectrum.
    product = torch.stack(
        (
            real[..., :blocks] + imaginary[..., blocks:],
            real[..., blocks:] - imaginary[..., :blocks],
        )
    )
    product_JFD = product.permute(3, 0, 1, 2).reshape(blocks, 2 * frequencies, dim)
    y_MD = torch.matmul(back_LF, product_JFD).view(-1, dim)[write]
    return F.gelu(y_MD + conv.bias)


# Arrays, not tensors: a tensor that is made in inference mode could not be used in training.
_transforms = lru_cache(maxsize=4)(transforms)
