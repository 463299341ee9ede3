"""HuBERT, the built-in backbone, whose features do not depend on the batch of a clip.

Its fast paths are modules of their own: ``conv_encoder.py`` and ``positional.py`` compute parts of it, and
``packed.py`` is its inference path on a CPU, ``packed_slots.py`` on a GPU.

Shapes: B batch, N samples, T frames, D hidden size, C channels of the convolutional encoder.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import HubertConfig, HubertModel, PreTrainedConfig
from transformers.masking_utils import create_bidirectional_mask

from gmp_atl_dist.audio import num_frames
from gmp_atl_dist.device import on_gpu
from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.models.backbone import (
    FrameModel,
    FrontEnd,
    SpeechBackbone,
)
from gmp_atl_dist.models.backbone_config import check_layers, set_normalize_waveform
from gmp_atl_dist.models.conv_encoder import ConvEncoder
from gmp_atl_dist.models.packed import PackedHubert
from gmp_atl_dist.models.packed_slots import SlotHubert
from gmp_atl_dist.models.packed_training import (
    can_pack,
    clip_rows,
    pass_rows,
    trained_conv_rows,
    training_frames,
)
from gmp_atl_dist.models.packing import PackedFrames, Packing
from gmp_atl_dist.models.padding import (
    check_shapes,
    make_group_norm_exact,
    normalize_waves,
    pad_frames,
    pad_waves,
    padding_exact_conv,
)
from gmp_atl_dist.models.seeded import seeded
from gmp_atl_dist.models.sizes import NAMED_SIZES
from gmp_atl_dist.models.slot_conv import SlotConv

__all__ = ["NAMED_SIZES", "Hubert", "build_random", "pad_waves"]


class Hubert(HubertModel, SpeechBackbone):
    """HuBERT with the stock weights and an exact treatment of padding.

    State dicts are interchangeable with :class:`transformers.HubertModel`'s, except that
    ``masked_spec_embed`` always exists.

    Raises:
        ModelError: the configuration has another frame rate than 50 per second, or batch norm.
    """

    def __init__(self, config: HubertConfig) -> None:
        self.prepare_config(config)
        super().__init__(config)
        make_group_norm_exact(self.feature_extractor.conv_layers)
        self._frozen_conv: ConvEncoder | None = None
        # transformers creates it only where its own SpecAugment is on.
        self.masked_spec_embed = nn.Parameter(torch.empty(config.hidden_size).uniform_())

    @classmethod
    def prepare_config(cls, config: PreTrainedConfig) -> None:
        super().prepare_config(config)
        if getattr(config, "conv_pos_batch_norm", False):
            raise ModelError(
                f"{getattr(config, '_name_or_path', '') or 'this HuBERT'} has conv_pos_batch_norm, with "
                f"which features depend on the batch; use a HuBERT with weight norm, such as "
                f"facebook/hubert-base-ls960"
            )

    @classmethod
    def build_random(cls, size: str, seed: int, *, normalize: bool | None = None) -> Hubert:
        return build_random(size, seed, normalize=normalize)

    def conv_features(self, wave_BN: Tensor, num_samples_B: Tensor, lengths: list[int]) -> Tensor:
        if self._frozen_conv is not None and not on_gpu(wave_BN):
            clips = [wave_N[:n] for wave_N, n in zip(wave_BN.float(), lengths, strict=True)]
            return pad_frames(self._frozen_conv(clips), num_frames(wave_BN.shape[1]))
        if self.config.normalize_waveform:
            wave_BN = normalize_waves(wave_BN, num_samples_B)
        return padding_exact_conv(self.feature_extractor.conv_layers, wave_BN, lengths)

    def project(self, conv_features_BTC: Tensor) -> Tensor:
        return self.feature_projection(conv_features_BTC)

    def encode(self, x_BTD: Tensor, valid_BT: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """The encoder of ``modeling_hubert.py``, both variants."""
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
            # transformers 5.23 records the last hidden state before this norm, 4.x after it. A reader of
            # the last layer needs it normalised, and so does training all parameters.
            hidden[len(encoder.layers)] = encoder.layer_norm(x_BTD)
        return {i: hidden[i] for i in layers}

    def packed_frames(
        self,
        wave_BN: Tensor,
        num_samples_B: Tensor,
        *,
        mask_M: Tensor | None = None,
        mask_BD: Tensor | None = None,
        want: Sequence[int] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> PackedFrames:
        """Without padding, see ``packed_training.py``, where it can compute this model."""
        if not can_pack(self):
            return super().packed_frames(
                wave_BN, num_samples_B, mask_M=mask_M, mask_BD=mask_BD, want=want, seeds=seeds
            )
        layers = [self.num_layers] if want is None else list(want)
        check_layers(self.config, layers)
        lengths: list[int] = num_samples_B.tolist()
        check_shapes(wave_BN, lengths, None)
        if seeds is None:
            seeds = torch.randint(2**62, (len(lengths),)).tolist()
        packing = Packing(tuple(map(num_frames, lengths)), tuple(seeds))
        # A CPU's operations do not follow autocast; a GPU's are PyTorch's own, which do.
        if on_gpu(wave_BN) or torch.is_autocast_enabled(wave_BN.device.type):
            ops, x_MC = pass_rows(self, wave_BN, num_samples_B, packing)
        else:
            ops, x_MC = clip_rows(self, wave_BN, lengths, packing)
        masks = {"mask_M": mask_M, "mask_BD": mask_BD}
        return training_frames(self, x_MC, packing, ops, layers=layers, **masks)

    def conv_rows(self, waves: Sequence[Tensor]) -> Tensor:
        """(M, C): the convolutional encoder of waves (N,) on a CPU, all clips in one row."""
        if self._frozen_conv is not None:
            return torch.cat(self._frozen_conv([wave_N.float() for wave_N in waves]))
        return trained_conv_rows(self, waves)

    def frame_model(
        self, layers: Sequence[int], *, window_frames: int, context_frames: int
    ) -> FrameModel:
        made = SlotHubert if on_gpu(self.masked_spec_embed) else PackedHubert
        return made(self, layers, window_frames=window_frames, context_frames=context_frames)

    def front_end(self, dtype: torch.dtype) -> FrontEnd:
        if on_gpu(self.masked_spec_embed):
            return SlotConv(self, dtype)
        return ConvEncoder(self, dtype)

    def freeze_front_end(self) -> None:
        """Train no weight of the convolutional encoder; it then keeps no activations either.

        On a CPU its features have the same bits in every batch from now on, also from a process that
        computes them beforehand, and they cost less without padding. They come from a copy of the weights,
        so load the weights before. No module is called per clip, because ZeRO 3 would have to gather such
        modules equally often on all ranks.
        """
        super().freeze_front_end()
        self._frozen_conv = ConvEncoder(self, torch.float32)


def build_random(size: str, seed: int, *, normalize: bool | None = None) -> Hubert:
    """A HuBERT of a named size with random weights, the same for the same seed; eval mode.

    Args:
        size: a key of ``NAMED_SIZES``.
        seed: of the weights. The global random state does not change.
        normalize: waveforms to zero mean and unit variance; None: where the size uses layer norm.

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
