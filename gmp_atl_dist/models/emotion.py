"""The emotion classifier: HuBERT, pooling, embedding, and the layer that the loss belongs to.

``finetune.pooling`` and ``finetune.loss`` choose two of these parts by name; ``config.json`` keeps the names,
and a stored model is built again from them. Importing this module registers the model, so that
``AutoModelForAudioClassification.from_pretrained(folder)`` loads it.

Shapes: B batch, N samples, D hidden size, E embedding size, K emotions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForAudioClassification, HubertConfig
from transformers.models.hubert.modeling_hubert import HubertPreTrainedModel

from gmp_atl_dist.config import Json
from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.models.head_registry import (
    AM_SOFTMAX,
    ATTENTIVE,
    build_loss,
    build_pooling,
    complete_options,
)
from gmp_atl_dist.models.heads import AmSoftmax, ClassificationLoss, HeadPart, LossTerms
from gmp_atl_dist.models.hubert import Hubert


class EmotionConfig(HubertConfig):
    """The configuration of the backbone and of the head; classes keep the order of ``emotions``.

    A ``config.json`` without ``pooling`` and ``loss`` is of an earlier version, which had attentive pooling
    and AM-Softmax only. ``am_scale`` and ``am_margin`` belong to AM-Softmax.
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


class EmotionModel(HubertPreTrainedModel):
    """Classifies the emotion of an utterance: pooling of the last layer, tanh embedding, class scores.

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
        self.hubert = Hubert(config)
        self.pooling = build_pooling(
            config.pooling, config.hidden_size, config.pooling_options or {}
        )
        self.embedding = nn.Linear(self.pooling.output_dim, config.embedding_dim)
        self.classifier = _classifier(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if not isinstance(module, HeadPart):
            return
        # What a checkpoint holds is marked, and stays.
        own = list(module.parameters(recurse=False))
        if not all(getattr(parameter, "_is_hf_initialized", False) for parameter in own):
            module.reset_parameters()

    @classmethod
    def from_backbone(
        cls,
        hubert: Hubert,
        emotions: Sequence[str],
        *,
        embedding_dim: int = 256,
        pooling: str = ATTENTIVE,
        pooling_options: Mapping[str, Json] | None = None,
        loss: str = AM_SOFTMAX,
        loss_options: Mapping[str, Json] | None = None,
        am_scale: float = 30.0,
        am_margin: float = 0.2,
    ) -> EmotionModel:
        """A new head on ``hubert``, which the model then owns, ready for training.

        Frozen parts stay frozen (``from_pretrained`` of transformers unfreezes everything). Random weights
        are drawn from the global random state.

        Raises:
            ModelError: ``emotions`` are less than two, or one is there twice.
            ConfigError: a pooling or loss is not installed here, or does not take the options.
        """
        all_options = complete_options(pooling, pooling_options or {}, loss, loss_options or {})
        values = hubert.config.to_dict()
        for key in ("model_type", "architectures", "id2label", "label2id"):
            values.pop(key, None)
        values |= {
            "emotions": list(emotions),
            "embedding_dim": embedding_dim,
            "pooling": pooling,
            "pooling_options": all_options[0],
            "loss": loss,
            "loss_options": all_options[1],
            "am_scale": am_scale,
            "am_margin": am_margin,
            "attn_implementation": hubert.config._attn_implementation,
        }
        model = cls(EmotionConfig(**values))
        old_config = hubert.config
        for module in hubert.modules():
            # One config for all modules, so that later changes on the backbone are saved with the model.
            if getattr(module, "config", None) is old_config:
                setattr(module, "config", model.config)  # noqa: B010 (modules type it differently)
        hubert.freeze_mask_embedding()
        model.hubert = hubert
        return model.train(hubert.training)

    def embed(self, wave_BN: Tensor, num_samples_B: Tensor) -> Tensor:
        """Utterance embeddings (B, E)."""
        frames = self.hubert.forward_frames(wave_BN, num_samples_B)
        x_BTD = frames.hidden[self.config.num_hidden_layers]
        return torch.tanh(self.embedding(self.pooling(x_BTD, frames.valid_BT)))

    def forward(
        self, wave_BN: Tensor, num_samples_B: Tensor, target_B: Tensor | None = None
    ) -> Tensor | LossTerms:
        """Logits (B, K) without targets, whose softmax gives the probabilities. With targets, the loss.

        Args:
            wave_BN: 16 kHz mono in [-1, 1), see :meth:`Hubert.forward_frames`.
            num_samples_B: int64, the length of each clip.
            target_B: int64 classes, for training only. The logits that come with the loss may have a
                margin subtracted from the target's, so they are no prediction.
        """
        return self.classifier(self.embed(wave_BN, num_samples_B), target_B)


def _classifier(config: EmotionConfig) -> ClassificationLoss:
    dim, classes = config.embedding_dim, len(config.emotions)
    if config.loss == AM_SOFTMAX:
        # Its options have been keys of their own since before there were others.
        return AmSoftmax(dim, classes, config.am_scale, config.am_margin)
    return build_loss(config.loss, dim, classes, config.loss_options or {})


AutoConfig.register(EmotionConfig.model_type, EmotionConfig, exist_ok=True)
AutoModelForAudioClassification.register(EmotionConfig, EmotionModel, exist_ok=True)
