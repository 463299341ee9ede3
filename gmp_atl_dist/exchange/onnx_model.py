"""The classifier as one graph of tensors, for ONNX: no Python number depends on the input.

It computes what ``EmotionModel`` computes, padding included. A test compares both.

Shapes: B batch, N samples, T frames, C channels, D hidden size, E embedding size, K emotions.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from gmp_atl_dist.audio import FRAME_HOP_SAMPLES, MIN_SAMPLES
from gmp_atl_dist.models.emotion import EmotionModel
from gmp_atl_dist.models.padding import ClipGroupNorm, normalize_waves, valid_steps

# As torch's softmax in eager attention: finite, so that a row without a valid frame has no NaN.
_MASKED = -1e9


class OnnxClassifier(nn.Module):
    """(wave (B, N), num_samples (B,)) to (logits (B, K), probabilities (B, K)).

    Args:
        model: a classifier on a HuBERT; it is used, not copied.
    """

    def __init__(self, model: EmotionModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, wave_BN: Tensor, num_samples_B: Tensor) -> tuple[Tensor, Tensor]:
        backbone = cast(Any, self.model.backbone)
        if backbone.config.normalize_waveform:
            wave_BN = normalize_waves(wave_BN, num_samples_B)
        else:
            wave_BN = wave_BN.masked_fill(~valid_steps(num_samples_B, wave_BN.shape[1]), 0.0)
        x_BTC = _convolve(backbone, wave_BN, num_samples_B)
        num_frames_B = (num_samples_B - MIN_SAMPLES) // FRAME_HOP_SAMPLES + 1
        valid_BT = valid_steps(num_frames_B, x_BTC.shape[1])
        x_BTD = backbone.feature_projection(x_BTC).masked_fill(~valid_BT[..., None], 0.0)
        hidden = _encode(backbone, x_BTD, valid_BT)
        logits_BK = self.model.classifier(self.model.embed_frames(hidden, valid_BT), None)
        return logits_BK, logits_BK.softmax(-1)


def _convolve(backbone: Any, wave_BN: Tensor, num_samples_B: Tensor) -> Tensor:
    first, *rest = backbone.feature_extractor.conv_layers
    x_BCT = wave_BN[:, None]
    if isinstance(getattr(first, "layer_norm", None), ClipGroupNorm):
        x_BCT = first.conv(x_BCT)
        steps_B = (num_samples_B - first.conv.kernel_size[0]) // first.conv.stride[0] + 1
        x_BCT = first.activation(_clip_norm(first.layer_norm, x_BCT, steps_B))
    else:
        x_BCT = first(x_BCT)
    for layer in rest:
        x_BCT = layer(x_BCT)
    return x_BCT.transpose(1, 2)


def _clip_norm(norm: ClipGroupNorm, x_BCT: Tensor, steps_B: Tensor) -> Tensor:
    """The group norm of one channel per group, over the valid steps of each clip."""
    valid_B1T = valid_steps(steps_B, x_BCT.shape[2])[:, None]
    count_B11 = steps_B[:, None, None]
    mean_BC1 = x_BCT.masked_fill(~valid_B1T, 0.0).sum(2, keepdim=True) / count_B11
    centred_BCT = (x_BCT - mean_BC1).masked_fill(~valid_B1T, 0.0)
    variance_BC1 = centred_BCT.square().sum(2, keepdim=True) / count_B11
    scaled_BCT = centred_BCT * torch.rsqrt(variance_BC1 + norm.eps)
    x_BCT = scaled_BCT * norm.weight[:, None] + norm.bias[:, None]
    return x_BCT.masked_fill(~valid_B1T, 0.0)


def _encode(backbone: Any, x_BTD: Tensor, valid_BT: Tensor) -> dict[int, Tensor]:
    """Every layer, as ``Hubert.encode`` gives them. What nothing reads is not in the graph."""
    encoder, stable = backbone.encoder, backbone.config.do_stable_layer_norm
    mask_B11T = torch.where(valid_BT, 0.0, _MASKED)[:, None, None]
    x_BTD = x_BTD + encoder.pos_conv_embed(x_BTD)
    if not stable:
        x_BTD = encoder.layer_norm(x_BTD)
    hidden = {0: x_BTD}
    for number, layer in enumerate(encoder.layers, 1):
        x_BTD = layer(x_BTD, attention_mask=mask_B11T)
        hidden[number] = x_BTD
    if stable:
        hidden[len(encoder.layers)] = encoder.layer_norm(x_BTD)
    return hidden
