"""The model that comes out at the end: HuBERT, attentive pooling, embedding, AM-Softmax.

Importing this module makes it known to transformers, so that
``AutoModelForAudioClassification.from_pretrained(folder)`` loads it.

Shapes: B batch, N samples, D hidden size, E embedding size, K emotions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForAudioClassification, HubertConfig
from transformers.models.hubert.modeling_hubert import HubertPreTrainedModel

from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.models.heads import AmSoftmax, AttentivePooling
from gmp_atl_dist.models.hubert import Hubert


class EmotionConfig(HubertConfig):
    """The backbone's configuration, and the head's; classes keep the order of ``emotions``."""

    model_type = "gmp_atl_emotion"

    emotions: list[str] | tuple[str, ...] = ()
    embedding_dim: int = 256
    am_scale: float = 30.0
    am_margin: float = 0.2

    def __post_init__(self, **kwargs: object) -> None:
        super().__post_init__(**kwargs)
        self.emotions = list(self.emotions)
        if self.emotions:
            self.id2label = dict(enumerate(self.emotions))
            self.label2id = {emotion: i for i, emotion in enumerate(self.emotions)}


class EmotionModel(HubertPreTrainedModel):
    """Utterance to emotion: attentive pooling of the last layer, tanh embedding, AM-Softmax.

    Raises:
        ModelError: the configuration names less than two emotions, or one twice.
    """

    config_class = EmotionConfig

    def __init__(self, config: EmotionConfig) -> None:
        super().__init__(config)
        if len(set(config.emotions)) != len(config.emotions) or len(config.emotions) < 2:
            raise ModelError(
                f"emotions {list(config.emotions)} are no class list; name at least two, each once"
            )
        self.hubert = Hubert(config)
        self.pooling = AttentivePooling(config.hidden_size)
        self.embedding = nn.Linear(config.hidden_size, config.embedding_dim)
        self.classifier = AmSoftmax(
            config.embedding_dim, len(config.emotions), config.am_scale, config.am_margin
        )
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # Only reached where a checkpoint lacks the head, e.g. a bare backbone.
        if isinstance(module, AmSoftmax) and not getattr(
            module.weight, "_is_hf_initialized", False
        ):
            module.reset_parameters()

    @classmethod
    def from_backbone(
        cls,
        hubert: Hubert,
        emotions: Sequence[str],
        *,
        embedding_dim: int = 256,
        am_scale: float = 30.0,
        am_margin: float = 0.2,
    ) -> EmotionModel:
        """A fresh head on ``hubert``, which the model then owns, ready to be trained.

        Frozen parts stay frozen (``from_pretrained`` of transformers thaws everything).

        Random weights are drawn from the global random state.
        """
        values = hubert.config.to_dict()
        for key in ("model_type", "architectures", "id2label", "label2id"):
            values.pop(key, None)
        values |= {
            "emotions": list(emotions),
            "embedding_dim": embedding_dim,
            "am_scale": am_scale,
            "am_margin": am_margin,
            "attn_implementation": hubert.config._attn_implementation,
        }
        model = cls(EmotionConfig(**values))
        old_config = hubert.config
        for module in hubert.modules():
            # One config for all, so that what is set on the backbone is saved with the model.
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
    ) -> Tensor:
        """Logits (B, K), whose softmax are probabilities.

        Args:
            wave_BN: 16 kHz mono in [-1, 1), see :meth:`Hubert.forward_frames`.
            num_samples_B: int64, each clip's own samples.
            target_B: classes; given for the training loss alone, they take the margin off the
                target's cosine, so that those logits tell nothing about what is predicted.
        """
        return self.classifier(self.embed(wave_BN, num_samples_B), target_B)


AutoConfig.register(EmotionConfig.model_type, EmotionConfig, exist_ok=True)
AutoModelForAudioClassification.register(EmotionConfig, EmotionModel, exist_ok=True)
