"""A complete backbone in one file: wav2vec 2.0 of transformers.

The package that holds this file declares it in its ``pyproject.toml``::

    [project.entry-points."gmp_atl_dist.backbones"]
    wav2vec2 = "backbone_example:Wav2Vec2"

The name ``wav2vec2`` is the ``model_type`` in the ``config.json`` of such a model.

Shapes: B batch, N samples, T frames, D hidden size, C channels of the convolutional encoder.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, Wav2Vec2Config, Wav2Vec2Model
from transformers.masking_utils import create_bidirectional_mask

from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.models.backbone import SpeechBackbone
from gmp_atl_dist.models.padding import make_group_norm_exact, normalize_waves, padding_exact_conv


class Wav2Vec2(Wav2Vec2Model, SpeechBackbone):  # pyright: ignore[reportIncompatibleMethodOverride]
    """wav2vec 2.0 with the stock weights, whose frames do not depend on padding."""

    def __init__(self, config: Wav2Vec2Config) -> None:
        self.prepare_config(config)  # frame rate, no layer drop, no SpecAugment
        super().__init__(config)
        # The base model normalises its first convolution over time, padding included. This replaces that norm
        # by one over each clip's own steps. The large models use layer norm and need no replacement.
        make_group_norm_exact(self.feature_extractor.conv_layers)
        # transformers creates it only where its own SpecAugment is on. Masked prediction needs it.
        self.masked_spec_embed = nn.Parameter(torch.empty(config.hidden_size).uniform_())

    @classmethod
    def prepare_config(cls, config: PreTrainedConfig) -> None:
        """Refuse what this implementation does not compute, by name."""
        super().prepare_config(config)
        if getattr(config, "add_adapter", False):
            raise ModelError(
                "this wav2vec 2.0 has an adapter (add_adapter); use a model without one"
            )

    def conv_features(self, wave_BN: Tensor, num_samples_B: Tensor, lengths: list[int]) -> Tensor:
        """(B, T, C): the convolutional encoder, exact whatever the padding."""
        if self.config.normalize_waveform:
            wave_BN = normalize_waves(wave_BN, num_samples_B)
        return padding_exact_conv(self.feature_extractor.conv_layers, wave_BN, lengths)

    def project(self, conv_features_BTC: Tensor) -> Tensor:
        """(B, T, D): norm, projection and dropout."""
        projected_BTD, _ = self.feature_projection(conv_features_BTC)
        return projected_BTD

    def encode(self, x_BTD: Tensor, valid_BT: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """(B, T, D) of each wanted layer. Layers above the highest of them are not computed."""
        encoder = self.encoder
        attention_mask = create_bidirectional_mask(
            config=self.config, inputs_embeds=x_BTD, attention_mask=valid_BT
        )
        x_BTD = x_BTD + encoder.pos_conv_embed(x_BTD)
        norm_first = self.config.do_stable_layer_norm
        x_BTD = encoder.dropout(x_BTD if norm_first else encoder.layer_norm(x_BTD))
        hidden = {0: x_BTD}
        for i, layer in enumerate(encoder.layers[: max(layers)], start=1):
            x_BTD = layer(x_BTD, attention_mask=attention_mask)
            hidden[i] = x_BTD
        if norm_first and len(encoder.layers) in hidden:
            # The last layer is what the model returns, which is after the final norm.
            hidden[len(encoder.layers)] = encoder.layer_norm(x_BTD)
        return {i: hidden[i] for i in layers}
