"""HuBERT with layer taps, whose features do not depend on the batch a clip fell into.

Shapes: B batch, N samples, T frames, D hidden size, C channels of the convolutional encoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers import HubertConfig, HubertModel
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.hubert.modeling_hubert import (
    HubertEncoderLayer,
    HubertGroupNormConvLayer,
    HubertLayerNormConvLayer,
)

from gmp_atl_dist.audio import FRAME_HOP_SAMPLES, MIN_SAMPLES, num_frames
from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.models.conv_encoder import ConvEncoder
from gmp_atl_dist.models.padding import (
    ClipGroupNorm,
    normalize_waves,
    pad_frames,
    pad_waves,
    refuse_short,
    valid_steps,
)
from gmp_atl_dist.models.sizes import NAMED_SIZES

__all__ = [
    "NAMED_SIZES",
    "FrameOutput",
    "Hubert",
    "build_random",
    "check_layers",
    "pad_waves",
]


class FrameOutput(NamedTuple):
    """What :meth:`Hubert.forward_frames` yields.

    Attributes:
        hidden: (B, T, D) per wanted layer. 0 is the input of the first layer, i its output; the
            last layer's is the model's ``last_hidden_state``, normalised also where
            ``do_stable_layer_norm`` leaves the layers below it unnormalised. Values in padding
            frames mean nothing.
        num_frames_B: frames of each clip, int64.
        valid_BT: True on a clip's own frames.
        conv_features_BTC: output of the convolutional encoder, before layer norm and projection.
    """

    hidden: dict[int, Tensor]
    num_frames_B: Tensor
    valid_BT: Tensor
    conv_features_BTC: Tensor


class Hubert(HubertModel):
    """Stock HuBERT weights behind a padding-exact forward pass, :meth:`forward_frames`.

    State dicts are interchangeable with :class:`transformers.HubertModel`'s. Differences: layer
    drop and SpecAugment are off for good (unused parameters break distributed training, and masks
    left on would be clustered), ``masked_spec_embed`` always exists, and
    ``config.normalize_waveform`` (by default, where the convolutions use layer norm) is saved with
    the model.

    Raises:
        ModelError: the configuration has another frame rate than 50/s, or batch norm.
    """

    def __init__(self, config: HubertConfig) -> None:
        _check_config(config)
        config.layerdrop = 0.0
        config.apply_spec_augment = False
        config.mask_time_prob = config.mask_feature_prob = 0.0
        if not hasattr(config, "normalize_waveform"):
            set_normalize_waveform(config, config.feat_extract_norm == "layer")
        super().__init__(config)
        if config.feat_extract_norm == "group":
            first = cast(HubertGroupNormConvLayer, self._first_conv)
            first.layer_norm = ClipGroupNorm(config.conv_dim[0], config.conv_dim[0])
        self._frozen_conv: ConvEncoder | None = None
        # Transformers creates it only where its own SpecAugment is on.
        self.masked_spec_embed = nn.Parameter(torch.empty(config.hidden_size).uniform_())

    @property
    def _first_conv(self) -> HubertGroupNormConvLayer | HubertLayerNormConvLayer:
        return cast(HubertGroupNormConvLayer, self.feature_extractor.conv_layers[0])

    def forward_frames(
        self,
        wave_BN: Tensor,
        num_samples_B: Tensor,
        *,
        mask_BT: Tensor | None = None,
        want: Sequence[int] | None = None,
    ) -> FrameOutput:
        """Hidden states of the wanted layers; nothing above the highest of them is computed.

        Args:
            wave_BN: 16 kHz mono in [-1, 1); what lies behind a clip's end is not read. Or (B, T, C),
                what the convolutional encoder made of it, which then is not computed.
            num_samples_B: int64, each clip's own samples.
            mask_BT: frames to hide behind ``masked_spec_embed``.
            want: layers, see :class:`FrameOutput`; None is the last one.

        Raises:
            ModelError: the model lacks a wanted layer.
            CorpusError: a clip is too short for one frame.
            ValueError: shapes do not fit together.
        """
        layers = [self.config.num_hidden_layers] if want is None else list(want)
        check_layers(self.config, layers)
        lengths: list[int] = num_samples_B.tolist()
        _check_shapes(wave_BN, lengths, mask_BT)
        num_samples_B = num_samples_B.to(wave_BN.device)

        conv_features_BTC = (
            wave_BN if wave_BN.ndim == 3 else self._conv_features(wave_BN, num_samples_B, lengths)
        )
        num_frames_B = torch.tensor([num_frames(n) for n in lengths], device=wave_BN.device)
        valid_BT = valid_steps(num_frames_B, conv_features_BTC.shape[1])

        x_BTD = self.feature_projection(conv_features_BTC)
        if mask_BT is not None:
            # where, not assignment: with no frame masked the embedding still gets a zero gradient.
            x_BTD = torch.where(mask_BT[..., None], self.masked_spec_embed.to(x_BTD.dtype), x_BTD)
        # Zeros, as beyond the end of a clip alone: the positional convolution looks 1.3 s ahead.
        x_BTD = x_BTD.masked_fill(~valid_BT[..., None], 0.0)
        hidden = self._encode(x_BTD, valid_BT, layers)
        return FrameOutput(hidden, num_frames_B, valid_BT, conv_features_BTC)

    def _conv_features(self, wave_BN: Tensor, num_samples_B: Tensor, lengths: list[int]) -> Tensor:
        """The feature encoder layer by layer, so that its group norm learns the clips' lengths."""
        if self._frozen_conv is not None and not wave_BN.is_cuda:
            clips = [wave_N[:n] for wave_N, n in zip(wave_BN.float(), lengths, strict=True)]
            return pad_frames(self._frozen_conv(clips), num_frames(wave_BN.shape[1]))
        if self.config.normalize_waveform:
            wave_BN = normalize_waves(wave_BN, num_samples_B)
        first = self._first_conv
        x_BCT = wave_BN[:, None].to(first.conv.weight.dtype)
        rest = list(self.feature_extractor.conv_layers)
        if isinstance(first.layer_norm, ClipGroupNorm):
            kernel, stride = self.config.conv_kernel[0], self.config.conv_stride[0]
            num_steps = [(n - kernel) // stride + 1 for n in lengths]
            x_BCT = first.activation(first.layer_norm(first.conv(x_BCT), num_steps))
            rest = rest[1:]
        for layer in rest:
            x_BCT = layer(x_BCT)
        return x_BCT.transpose(1, 2)

    def _encode(self, x_BTD: Tensor, valid_BT: Tensor, layers: list[int]) -> dict[int, Tensor]:
        """The encoder of ``modeling_hubert.py``, both variants, up to the highest wanted layer."""
        encoder = self.encoder
        attention_mask = create_bidirectional_mask(
            config=encoder.config, inputs_embeds=x_BTD, attention_mask=valid_BT
        )
        x_BTD = x_BTD + encoder.pos_conv_embed(x_BTD)
        stable = self.config.do_stable_layer_norm
        x_BTD = encoder.dropout(x_BTD if stable else encoder.layer_norm(x_BTD))
        hidden = {0: x_BTD}
        for i, layer in enumerate(encoder.layers[: max(layers)], start=1):
            x_BTD = layer(x_BTD, attention_mask=attention_mask)
            hidden[i] = x_BTD
        if stable and len(encoder.layers) in hidden:
            # transformers 5.23 records the last hidden state before this norm, 4.x after it. What
            # reads the last layer needs it normalised, and so does training all parameters.
            hidden[len(encoder.layers)] = encoder.layer_norm(x_BTD)
        return {i: hidden[i] for i in layers}

    def freeze_conv_encoder(self) -> None:
        """Leave the convolutional encoder as it is; it then keeps no activations either.

        On a CPU its features are from now on the same bits in every batch, also from a process that
        computes them beforehand, and without padding they cost less. A copy of the weights makes them, so
        give the model its weights before. It calls no module a clip, which ZeRO 3 would have to gather
        equally often on all ranks.
        """
        self.feature_extractor._freeze_parameters()
        self._frozen_conv = ConvEncoder(self, torch.float32)

    def checkpoint_gradients(self) -> None:
        """Keep no activations of encoder layers while training, but compute them again."""
        self.activation_checkpointing_enable({"use_reentrant": False})

    def freeze_mask_embedding(self) -> None:
        """For stages that mask nothing: parameters without gradient stall distributed training."""
        self.masked_spec_embed.requires_grad_(False)

    def set_dropout(self, p: float) -> None:
        """Dropout of hidden states, attention, activations and projections, also in the config."""
        if not 0.0 <= p < 1.0:
            raise ValueError(f"dropout {p} is not in [0, 1)")
        config = self.config
        config.hidden_dropout = config.attention_dropout = config.activation_dropout = p
        config.feat_proj_dropout = config.final_dropout = p
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = p
        for layer in self.encoder.layers:
            cast(HubertEncoderLayer, layer).attention.dropout = p


def build_random(size: str, seed: int, *, normalize: bool | None = None) -> Hubert:
    """A HuBERT of a named size with random weights, the same for the same seed; eval mode.

    Args:
        size: a key of ``NAMED_SIZES``.
        seed: of the weights. The global random state is left as it was.
        normalize: waveforms to zero mean and unit variance; None where the size uses layer norm.

    Raises:
        ModelError: there is no such size.
    """
    if size not in NAMED_SIZES:
        raise ModelError(f"model size {size!r} is unknown; choose from {', '.join(NAMED_SIZES)}")
    config = HubertConfig.from_dict(dict(NAMED_SIZES[size]))
    if normalize is not None:
        set_normalize_waveform(config, normalize)
    with seeded(seed):
        return Hubert(config).eval()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random weights made inside follow ``seed``; the global random state is as before after it."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would seed the GPUs too, where nothing puts it back.
        torch.default_generator.manual_seed(seed)
        yield


def set_normalize_waveform(config: HubertConfig, normalize: bool) -> None:
    """Note in ``config`` whether waveforms are normalised; saved in ``config.json``."""
    setattr(config, "normalize_waveform", normalize)  # noqa: B010 (not a declared field)


def check_layers(config: HubertConfig, layers: Iterable[int], *, name: str = "") -> None:
    """Refuse layers that the model lacks.

    Raises:
        ModelError: names the model, every such layer, and how many layers there are.
    """
    count = config.num_hidden_layers
    missing = [layer for layer in layers if not 0 <= layer <= count]
    if missing:
        model = name or getattr(config, "_name_or_path", "") or "this HuBERT"
        raise ModelError(
            f"{model} has no layer {', '.join(map(str, missing))}: it has {count} layers; "
            f"choose from 1 to {count}, or 0 for the input of the first"
        )


def _check_config(config: HubertConfig) -> None:
    name = getattr(config, "_name_or_path", "") or "this HuBERT"
    strides = [int(stride) for stride in config.conv_stride]
    hop = prod(strides)
    field = 1 + sum((kernel - 1) * prod(strides[:i]) for i, kernel in enumerate(config.conv_kernel))
    if (hop, field) != (FRAME_HOP_SAMPLES, MIN_SAMPLES):
        raise ModelError(
            f"{name} yields a frame every {hop} samples from {field} samples; this package's "
            f"labels are made for {FRAME_HOP_SAMPLES} and {MIN_SAMPLES}: use a HuBERT with those"
        )
    if config.conv_pos_batch_norm:
        raise ModelError(
            f"{name} has conv_pos_batch_norm, with which features depend on the batch; use a "
            f"HuBERT with weight norm, such as facebook/hubert-base-ls960"
        )


def _check_shapes(wave_BN: Tensor, lengths: list[int], mask_BT: Tensor | None) -> None:
    if wave_BN.ndim not in (2, 3) or wave_BN.shape[0] != len(lengths):
        raise ValueError(f"waves of shape {tuple(wave_BN.shape)} with {len(lengths)} lengths")
    refuse_short(lengths)
    steps = wave_BN.shape[1]
    if wave_BN.ndim == 3 and steps != num_frames(max(lengths)):
        raise ValueError(f"{steps} convolutional frames for a clip of {max(lengths)} samples")
    if wave_BN.ndim == 2 and max(lengths) > steps:
        raise ValueError(f"a clip of {max(lengths)} samples in a batch of {steps}")
    expected = (len(lengths), steps if wave_BN.ndim == 3 else num_frames(steps))
    if mask_BT is not None and tuple(mask_BT.shape) != expected:
        raise ValueError(f"mask_BT has shape {tuple(mask_BT.shape)}; the batch needs {expected}")
