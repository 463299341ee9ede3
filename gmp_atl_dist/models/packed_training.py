"""HuBERT over packed clips in training: what ``forward_frames`` computes, without padding, with gradients.

It is tested against ``forward_frames``: values, gradients of every parameter, and the curve of a training.

Shapes: B clips, N samples, T frames of a clip, M frames of all clips in one row, C channels of the
convolutional encoder, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor

from gmp_atl_dist.models.packed_clip_ops import ClipOps
from gmp_atl_dist.models.packed_conv import packed_conv
from gmp_atl_dist.models.packed_layers import LayerOps, encode, project
from gmp_atl_dist.models.packed_pass_ops import PassOps
from gmp_atl_dist.models.packing import PackedFrames, Packing

Hubert: TypeAlias = Any
"""``models.hubert.Hubert``, whose module imports this one."""


def can_pack(model: Hubert) -> bool:
    """Whether this module computes the model: with the activation of all published ones, and without ZeRO 3.

    ZeRO 3 gathers weights when a module is called; here modules are read.
    """
    config = model.config
    usual = config.hidden_act == config.feat_extract_activation == "gelu"
    adapted = getattr(config, "adapter_attn_dim", None) is not None
    return usual and not adapted and not hasattr(model.masked_spec_embed, "ds_id")


def training_frames(
    model: Hubert,
    x_MC: Tensor,
    packing: Packing,
    ops: LayerOps,
    *,
    mask_M: Tensor | None,
    mask_BD: Tensor | None,
    layers: Sequence[int],
) -> PackedFrames:
    """Frames of packed clips, from the outputs of the convolutional encoder.

    For the other arguments see ``SpeechBackbone.packed_frames``.
    """
    x_MC = model._controlled_front_end(x_MC)
    x_MD = project(model, x_MC, ops)
    if mask_M is not None:
        # torch.where, not assignment: with no masked frame the embedding still gets a zero gradient.
        embedding_D = cast(Tensor, model.masked_spec_embed)
        x_MD = torch.where(mask_M[:, None], embedding_D.to(x_MD.dtype), x_MD)
    if mask_BD is not None:
        counts_B = torch.tensor(packing.num_frames, device=x_MD.device)
        # The size is given, so that the host need not wait for the device.
        mask_MD = mask_BD.repeat_interleave(counts_B, 0, output_size=packing.total)
        x_MD = x_MD.masked_fill(mask_MD, 0.0)
    dropped = model.dropped_layers if model.training else frozenset()
    encoded = encode(model, x_MD, ops, layers, dropped, recompute=model.is_activation_checkpointing)
    hidden = {layer: model._controlled_output(h_MD) for layer, h_MD in encoded.items()}
    return PackedFrames(hidden, packing.num_frames, model._controlled_output(x_MC))


def clip_rows(
    model: Hubert, wave_BN: Tensor, lengths: Sequence[int], packing: Packing
) -> tuple[ClipOps, Tensor]:
    """On a CPU: its operations, and the outputs of the convolutional encoder, computed or given."""
    given = wave_BN.ndim == 3
    own = packing.num_frames if given else lengths
    clips = [clip[:n] for clip, n in zip(wave_BN, own, strict=True)]
    return ClipOps(packing), torch.cat(clips) if given else model.conv_rows(clips)


def pass_rows(
    model: Hubert, wave_BN: Tensor, num_samples_B: Tensor, packing: Packing
) -> tuple[PassOps, Tensor]:
    """On a GPU, likewise."""
    device = wave_BN.device
    half = torch.is_autocast_enabled(device.type)
    dtype = torch.get_autocast_dtype(device.type) if half else model.masked_spec_embed.dtype
    drops = model.training and float(model.config.attention_dropout) > 0.0
    ops = PassOps(packing, dtype, drops=drops)
    if wave_BN.ndim == 2:
        lengths: list[int] = num_samples_B.tolist()
        wave_BN = model.conv_features(wave_BN, num_samples_B.to(device), lengths)
    return ops, ops.rows(wave_BN)


def trained_conv_rows(model: Hubert, waves: Sequence[Tensor]) -> Tensor:
    """(M, C) of all clips, with gradients."""
    dtype = model.masked_spec_embed.dtype
    return packed_conv(model, [wave_N.to(dtype) for wave_N in waves])
