"""The emotion classifier: backbone, pooling, embedding, and the layer that the loss belongs to.

``finetune.pooling`` and ``finetune.loss`` choose two of these parts by name; ``config.json`` keeps the names,
and a stored model is built again from them. Importing this module registers the model, so that
``AutoModelForAudioClassification.from_pretrained(folder)`` loads it.

Shapes: B batch, N samples, D hidden size, E embedding size, K emotions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForAudioClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

from gmp_atl_dist.config import Json
from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.models.backbone import DEFAULT_MODEL_TYPE, SpeechBackbone
from gmp_atl_dist.models.backbone_registry import find_backbone
from gmp_atl_dist.models.head_registry import (
    AAM_SOFTMAX,
    AM_SOFTMAX,
    ATTENTIVE,
    build_loss,
    build_pooling,
    complete_options,
)
from gmp_atl_dist.models.heads import ClassificationLoss, HeadPart, LossTerms
from gmp_atl_dist.models.layer_mean import LayerMean, PoolLayers
from gmp_atl_dist.models.margin_losses import AamSoftmax, AmSoftmax
from gmp_atl_dist.records import DEFAULT_CHANNEL, Channel

# Keys of a configuration that name the whole model and its classes, not the backbone within.
_OWN_KEYS = ("model_type", "architectures", "id2label", "label2id")


class EmotionConfig(PreTrainedConfig):
    """The configuration of the backbone and of the head; classes keep the order of ``emotions``.

    ``backbone_type`` is the model type of the backbone; it is left out where it is HuBERT's. A
    ``config.json`` without ``pooling`` and ``loss`` is of an earlier version, which had attentive pooling
    and AM-Softmax only. ``am_scale`` and ``am_margin`` belong to the losses with a margin. ``pool_layers`` is
    left out where it is ``last``. ``embedding_dim`` is 0 where there is no embedding layer.
    """

    model_type = "gmp_atl_emotion"

    emotions: list[str] | tuple[str, ...] = ()
    embedding_dim: int = 256
    pooling: str = ATTENTIVE
    pooling_options: dict | None = None
    loss: str = AM_SOFTMAX
    loss_options: dict | None = None
    am_scale: float = 30.0
    am_margin: float = 0.2

    def __post_init__(self, **kwargs: object) -> None:
        super().__post_init__(**kwargs)
        self.emotions = list(self.emotions)
        if self.emotions:
            self.id2label = dict(enumerate(self.emotions))
            self.label2id = {emotion: i for i, emotion in enumerate(self.emotions)}

    @property
    def audio_channel(self) -> Channel:
        """What the model was trained on of recordings with several channels. The mean is not written down.

        Raises:
            ModelError: the configuration names another one.
        """
        channel = getattr(self, "channel", DEFAULT_CHANNEL)
        if channel not in get_args(Channel):
            raise ModelError(
                f"config.json: channel {channel!r} is not known; it is one of {', '.join(get_args(Channel))}"
            )
        return cast("Channel", channel)

    @property
    def pooled_layers(self) -> PoolLayers:
        """Which frames are pooled.

        Raises:
            ModelError: the configuration names something else than those.
        """
        layers = getattr(self, "pool_layers", "last")
        if layers not in get_args(PoolLayers):
            raise ModelError(
                f"config.json: pool_layers {layers!r} is not known; it is one of "
                f"{', '.join(get_args(PoolLayers))}"
            )
        return cast("PoolLayers", layers)

    def build_backbone(self) -> SpeechBackbone:
        """A backbone of this configuration with random weights.

        Raises:
            ModelError: its model type is not supported here.
        """
        backbone_type = getattr(self, "backbone_type", DEFAULT_MODEL_TYPE)
        implementation = find_backbone(backbone_type, "the fine-tuned model's backbone")
        values = {key: value for key, value in self.to_dict().items() if key not in _OWN_KEYS}
        return implementation(implementation.configuration().from_dict(values))


class EmotionModel(PreTrainedModel):
    """Classifies the emotion of an utterance: pooling of frames, tanh embedding, class scores.

    The frames are those of the last layer, or a learnt mean of all layers. The embedding may be left out.

    Raises:
        ModelError: the configuration names less than two emotions, or one twice.
        ConfigError: a pooling or loss is not installed here, or does not take the options.
    """

    config_class = EmotionConfig

    def __init__(self, config: EmotionConfig) -> None:
        super().__init__(config)
        if len(set(config.emotions)) != len(config.emotions) or len(config.emotions) < 2:
            raise ModelError(
                f"emotions {list(config.emotions)} are no class list; name at least two, each once"
            )
        backbone = config.build_backbone()
        # Weights of the backbone keep the prefix that transformers gives them, such as "hubert.".
        self.base_model_prefix = type(backbone).base_model_prefix
        setattr(self, self.base_model_prefix, backbone)
        self.pooling = build_pooling(
            config.pooling, backbone.hidden_size, config.pooling_options or {}
        )
        # Training sets its probability (finetune.head_dropout). It is no part of the stored model.
        self.head_dropout = nn.Dropout(0.0)
        if config.pooled_layers == "average":
            self.layer_mean = LayerMean(backbone.num_layers + 1)
        if config.embedding_dim:
            self.embedding = nn.Linear(self.pooling.output_dim, config.embedding_dim)
        self.classifier = _classifier(config, config.embedding_dim or self.pooling.output_dim)
        self.post_init()

    @property
    def backbone(self) -> SpeechBackbone:
        return getattr(self, self.base_model_prefix)

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """As transformers does, with what was set on the backbone since, such as its dropout."""
        for key, value in _backbone_values(self.backbone).items():
            setattr(self.config, key, value)
        super().save_pretrained(*args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # The head starts as a head of this backbone does in transformers.
        self.backbone._init_weights(module)
        if not isinstance(module, HeadPart):
            return
        # What a checkpoint holds is marked, and stays.
        own = list(module.parameters(recurse=False))
        if not all(getattr(parameter, "_is_hf_initialized", False) for parameter in own):
            module.reset_parameters()

    @classmethod
    def from_backbone(
        cls,
        backbone: SpeechBackbone,
        emotions: Sequence[str],
        *,
        embedding_dim: int = 256,
        pooling: str = ATTENTIVE,
        pooling_options: Mapping[str, Json] | None = None,
        loss: str = AM_SOFTMAX,
        loss_options: Mapping[str, Json] | None = None,
        am_scale: float = 30.0,
        am_margin: float = 0.2,
        pool_layers: PoolLayers = "last",
        channel: Channel = DEFAULT_CHANNEL,
    ) -> EmotionModel:
        """A new head on ``backbone``, which the model then owns, ready for training.

        Frozen parts stay frozen (``from_pretrained`` of transformers unfreezes everything). Random weights
        are drawn from the global random state.

        Raises:
            ModelError: ``emotions`` are less than two, or one is there twice.
            ConfigError: a pooling or loss is not installed here, or does not take the options.
        """
        all_options = complete_options(pooling, pooling_options or {}, loss, loss_options or {})
        values = _backbone_values(backbone)
        values |= {
            "emotions": list(emotions),
            "embedding_dim": embedding_dim,
            "pooling": pooling,
            "pooling_options": all_options[0],
            "loss": loss,
            "loss_options": all_options[1],
            "am_scale": am_scale,
            "am_margin": am_margin,
        }
        if pool_layers != "last":
            values["pool_layers"] = pool_layers
        if channel != DEFAULT_CHANNEL:
            values["channel"] = channel
        model = cls(EmotionConfig(**values))
        backbone.train_mask_embedding(False)
        setattr(model, model.base_model_prefix, backbone)
        return model.train(backbone.training)

    def embed(
        self,
        wave_BN: Tensor,
        num_samples_B: Tensor,
        mask_M: Tensor | None = None,
        mask_BD: Tensor | None = None,
        seeds: Sequence[int] | None = None,
    ) -> Tensor:
        """Utterance embeddings (B, E). For the arguments see :meth:`SpeechBackbone.packed_frames`."""
        frames = self.backbone.packed_frames(
            wave_BN, num_samples_B, mask_M=mask_M, mask_BD=mask_BD, want=self.layers, seeds=seeds
        )
        hidden = {layer: frames.padded(layer) for layer in self.layers}
        return self.embed_frames(hidden, frames.valid_BT)

    @property
    def layers(self) -> list[int]:
        """The layers whose frames :meth:`embed_frames` reads."""
        last = self.backbone.num_layers
        return [last] if self.config.pooled_layers == "last" else list(range(last + 1))

    def embed_frames(self, hidden: Mapping[int, Tensor], valid_BT: Tensor) -> Tensor:
        """Utterance embeddings (B, E) of frames (B, T, D) of :attr:`layers`."""
        frames = [hidden[layer] for layer in self.layers]
        x_BTD = frames[0] if len(frames) == 1 else self.layer_mean(frames)
        pooled_BP = self.head_dropout(self.pooling(x_BTD, valid_BT))
        return torch.tanh(self.embedding(pooled_BP)) if self.config.embedding_dim else pooled_BP

    def forward(
        self,
        wave_BN: Tensor,
        num_samples_B: Tensor,
        target_B: Tensor | None = None,
        mask_M: Tensor | None = None,
        mask_BD: Tensor | None = None,
        seeds: Sequence[int] | None = None,
    ) -> Tensor | LossTerms:
        """Logits (B, K) without targets, whose softmax gives the probabilities. With targets, the loss.

        Args:
            wave_BN: 16 kHz mono in [-1, 1), see :meth:`SpeechBackbone.packed_frames`.
            num_samples_B: int64, the length of each clip.
            target_B: int64 classes, for training only. The logits that come with the loss may have a
                margin subtracted from the target's, so they are no prediction.
            mask_M: of SpecAugment, for training only; of the frames of all clips, one after another.
            mask_BD: the same, of features.
            seeds: of each clip's dropout, for training only.
        """
        x_BE = self.embed(wave_BN, num_samples_B, mask_M, mask_BD, seeds)
        return self.classifier(x_BE, target_B)


def _classifier(config: EmotionConfig, dim: int) -> ClassificationLoss:
    classes = len(config.emotions)
    # The options of AM-Softmax have been keys of their own since before there were others.
    if config.loss == AM_SOFTMAX:
        return AmSoftmax(dim, classes, config.am_scale, config.am_margin)
    if config.loss == AAM_SOFTMAX:
        return AamSoftmax(dim, classes, config.am_scale, config.am_margin)
    return build_loss(config.loss, dim, classes, config.loss_options or {})


def _backbone_values(backbone: SpeechBackbone) -> dict[str, Any]:
    """What of the backbone's configuration is part of the whole model's."""
    values = backbone.config.to_dict()
    for key in (*_OWN_KEYS, "transformers_version"):
        values.pop(key, None)
    model_type = backbone.configuration().model_type
    return values if model_type == DEFAULT_MODEL_TYPE else values | {"backbone_type": model_type}


AutoConfig.register(EmotionConfig.model_type, EmotionConfig, exist_ok=True)
AutoModelForAudioClassification.register(EmotionConfig, EmotionModel, exist_ok=True)
