"""HuBERT's positional convolution in the frequency domain; inference only.

``PositionalConv`` is for a CPU; ``slot_positional.py`` is for a GPU, in half precision and few kernels.

The convolution has 128 taps over 16 groups of 48 channels. No library computes such small products fast: the
plain convolution takes a tenth of all time for a twenty-fifth of the arithmetic. Here it is a product of
spectra over blocks of 256 frames, of which 129 are complete (overlap-save). That needs a third of the
arithmetic, all of it in plain matrix products. The Fourier transforms are matrix products too: a fast
transform would save little more, and the last bits of a library's transform depend on the number of threads
and of blocks.

Shapes: M frames of all clips in one row, J blocks, L frames in a block, F frequencies, G groups,
W channels in a group, D hidden. A spectrum's real parts lie before its imaginary ones: 2F.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import HubertModel

from gmp_atl_dist.models.conv_encoder import activation_in_place
from gmp_atl_dist.models.row_padding import pad_few_rows


class PositionalConv:
    """``pos_conv_embed`` of packed clips. A frame sees its own clip only."""

    def __init__(self, model: HubertModel) -> None:
        conv = cast(nn.Conv1d, model.encoder.pos_conv_embed.conv)
        weight_DWL, device = position_weight(conv), conv.weight.device
        self._bias_D = cast(Tensor, conv.bias).detach().float()
        self._groups = conv.groups
        self._taps = weight_DWL.shape[2]
        self._block = 2 * self._taps
        self._activation = activation_in_place(model.config.feat_extract_activation)
        into, back = transforms(self._block, self._block - self._taps + 1)
        self._into_FL = torch.from_numpy(into).float().to(device)
        self._back_LF = torch.from_numpy(back).float().to(device)
        weight = spectral_weight(weight_DWL, self._groups, self._block)
        self._weight = torch.from_numpy(weight).to(device)

    def __call__(self, x_MD: Tensor, num_frames_B: Sequence[int]) -> Tensor:
        """The term to add to ``x_MD`` (float32), which holds the frames of all clips one after another."""
        dim = x_MD.shape[1]
        read, write = block_rows(
            num_frames_B, self._taps, self._block, self._block - self._taps + 1
        )
        blocks, rows = len(read), len(self._into_FL)
        x_JLD = torch.cat([x_MD, x_MD.new_zeros(1, dim)])[torch.from_numpy(read).to(x_MD.device)]
        spectrum_JFD = x_MD.new_empty(blocks, rows, dim)
        for x_LD, out in zip(x_JLD, spectrum_JFD, strict=True):
            torch.mm(self._into_FL, x_LD, out=out)
        # From (2, F, G, W) per block to one row of 2W per block, frequency and group.
        parts = spectrum_JFD.view(blocks, 2, rows // 2, self._groups, -1).permute(2, 3, 0, 1, 4)
        blocks_of_each = pad_few_rows(parts.reshape(len(self._weight), blocks, -1))
        product = torch.bmm(blocks_of_each, self._weight)[:, :blocks]
        product = product.reshape(rows // 2, self._groups, blocks, 2, -1).permute(2, 3, 0, 1, 4)
        product_JFD = product.reshape(blocks, rows, dim)
        y_JLD = x_MD.new_empty(blocks, len(self._back_LF), dim)
        for spectrum_FD, out in zip(product_JFD, y_JLD, strict=True):
            torch.mm(self._back_LF, spectrum_FD, out=out)
        y_MD = y_JLD.view(-1, dim)[torch.from_numpy(write).to(x_MD.device)]
        return self._activation(y_MD.add_(self._bias_D))


def block_rows(
    num_frames_B: Sequence[int], taps: int, block: int, whole: int
) -> tuple[np.ndarray, np.ndarray]:
    """The rows that each block reads (J, L), and the row of the output per frame (M,).

    The row after the last one stands for zeros. ``whole`` frames of a block are complete.
    """
    before = taps // 2
    total = sum(num_frames_B)
    reads: list[np.ndarray] = []
    writes: list[np.ndarray] = []
    first = 0
    for count in num_frames_B:
        for start in range(0, count, whole):
            frames = np.arange(start - before, start - before + block)
            inside = (frames >= 0) & (frames < count)
            writes.append(np.arange(min(whole, count - start)) + len(reads) * whole)
            reads.append(np.where(inside, frames + first, total))
        first += count
    if len(reads) == 1:
        # For a product with one row the library uses other code, with other last bits.
        reads.append(np.full(block, total))
    return np.stack(reads), np.concatenate(writes)


def position_weight(conv: nn.Conv1d) -> np.ndarray:
    """float64 (D, W, L), with the weight norm applied here: torch's sums depend on the number of threads."""
    if not parametrize.is_parametrized(conv, "weight"):
        return conv.weight.detach().double().cpu().numpy()
    state = conv.state_dict()
    length, direction = (
        state[f"parametrizations.weight.original{i}"].double().cpu().numpy() for i in (0, 1)
    )
    # The norm is over all but the last axis, as HubertPositionalConvEmbedding sets it (dim=2).
    return length * direction / np.sqrt((direction**2).sum(axis=(0, 1), keepdims=True))


def transforms(block: int, whole: int) -> tuple[np.ndarray, np.ndarray]:
    """float64 (2F, L) from frames to a spectrum, and (whole, 2F) back to the complete frames."""
    frequency = np.arange(block // 2 + 1)
    angle_FL = 2 * np.pi * np.outer(frequency, np.arange(block)) / block
    into = np.concatenate([np.cos(angle_FL), -np.sin(angle_FL)])
    # Each frequency but the first and the last counts twice.
    share_F = np.where((frequency == 0) | (frequency == block // 2), 1.0, 2.0) / block
    back_LF = (into * np.tile(share_F, 2)[:, None]).T[:whole]
    return into, np.ascontiguousarray(back_LF)


def spectral_weight(weight_DWL: np.ndarray, groups: int, block: int) -> np.ndarray:
    """float32 (F x G, 2W, 2W): for each frequency and group, the complex product as a real one.

    A convolution layer correlates, so the spectrum of its weight is conjugate.
    """
    spectrum_DWF = np.fft.rfft(weight_DWL, n=block)
    dim, width, frequencies = spectrum_DWF.shape
    shape = (frequencies, groups, dim // groups, width)
    # Rounded first and turned afterwards: the same values, in a fifth of the time.
    real, imaginary = (
        np.ascontiguousarray(part.astype(np.float32).reshape(-1, frequencies).T)
        .reshape(shape)
        .transpose(0, 1, 3, 2)  # (F, G, in, out)
        for part in (spectrum_DWF.real, -spectrum_DWF.imag)
    )
    weight = np.empty((frequencies, groups, 2 * width, 2 * shape[2]), np.float32)
    weight[..., :width, : shape[2]] = weight[..., width:, shape[2] :] = real
    weight[..., :width, shape[2] :] = imaginary
    np.negative(imaginary, out=weight[..., width:, : shape[2]])
    return weight.reshape(frequencies * groups, 2 * width, -1)
