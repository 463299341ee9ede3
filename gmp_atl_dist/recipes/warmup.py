"""The recipe of ``warmup``: an emotion head and a gender head on pooled frames of the backbone.

Loss: ``(1 - g) * CE(emotion) + g * CE(gender)``, ``g`` = ``warmup.gender_weight``.
"""

from __future__ import annotations

import torch
from torch import nn

from gmp_atl_dist.config import WarmupConfig
from gmp_atl_dist.fold import TrainingSpeakers
from gmp_atl_dist.models.backbone import SpeechBackbone
from gmp_atl_dist.models.losses import weighted_cross_entropy_sum
from gmp_atl_dist.models.multitask import WarmupModel, WarmupOutput
from gmp_atl_dist.models.source import backbone_from_files, model_to_files
from gmp_atl_dist.models.warmed_up import HEADS_NAME, heads_to_bytes
from gmp_atl_dist.recipes.class_weights import check_emotions, class_weights
from gmp_atl_dist.recipes.options import augmentation_masks, dropout_seeds, prepare_backbone
from gmp_atl_dist.records import GENDERS
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.index import training_utterances
from gmp_atl_dist.store.readers import read_emotions
from gmp_atl_dist.store.sources import read_sources
from gmp_atl_dist.training.batches import Batch
from gmp_atl_dist.training.meter import Number
from gmp_atl_dist.training.recipe import Forward, Losses, Recipe


class WarmupRecipe(Recipe):
    """Cross-entropy of two heads on pooled frames."""

    name = "warmup"

    def __init__(
        self, config: WarmupConfig, corpus: Artifact, backbone: Artifact, training: TrainingSpeakers
    ) -> None:
        self.optim = config
        self._config = config
        self.corpus = corpus
        self.utterances = training_utterances(corpus, training.with_emotions(self.name))
        self.factors = (1 - config.gender_weight, config.gender_weight)
        self._backbone = backbone
        self._hidden_size = 0  # known once the model is built
        self._keeps_heads = any(not source.labelled for source in read_sources(corpus))
        self._emotions = read_emotions(corpus)
        if config.gender_weight < 1:
            check_emotions(self.utterances, self._emotions, self.name, training.fold.name)
        balanced = config.class_weights == "balanced"
        self._emotion_weights = class_weights(self.utterances, self._emotions, "emotion", balanced)
        counts = self.utterances.counts("gender", GENDERS)
        # Utterances without a gender are there only if gender has no weight.
        self._has_gender = sum(counts) == len(self.utterances)
        balanced = balanced and self._has_gender
        self._gender_weights = class_weights(self.utterances, GENDERS, "gender", balanced)

    def build(self) -> nn.Module:
        backbone = backbone_from_files(self._backbone.read_files())
        self._hidden_size = backbone.hidden_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._config.seed)
            model = WarmupModel(
                backbone,
                len(self._emotions),
                self._config.pool_layers,
                self._config.head_dropout,
            )
        prepare_backbone(backbone, self._config)
        return model

    def counts(self, batch: Batch) -> tuple[float, ...]:
        emotion_B, gender_B = self._targets(batch)
        weight_B = batch.weight_B
        return (
            float((self._emotion_weights[emotion_B] * weight_B).sum()),
            float((self._gender_weights[gender_B] * weight_B).sum()),
        )

    def losses(self, forward: Forward, batch: Batch) -> Losses:
        masks = augmentation_masks(self._config, batch, self._hidden_size)
        seeds = dropout_seeds(self._config, batch)
        logits = forward(batch.model_input, batch.num_samples_B, seeds=seeds, **masks)
        if not isinstance(logits, WarmupOutput):
            raise TypeError(f"warmup expects a WarmupOutput, got {type(logits).__name__}")
        device = batch.wave_BN.device
        sums: list[torch.Tensor] = []
        metrics: dict[str, tuple[Number, Number]] = {}
        weight_B = batch.weight_B.to(device, non_blocking=True)
        heads = (
            ("emotion", logits.emotion_BK, self._emotion_weights),
            ("gender", logits.gender_BG, self._gender_weights),
        )
        for (name, logits_BK, class_weight_K), target_B in zip(
            heads, self._targets(batch), strict=True
        ):
            target_B = target_B.to(device)
            loss, _ = weighted_cross_entropy_sum(
                logits_BK, target_B, class_weight_K.to(device), weight_B
            )
            sums.append(loss)
            if name == "gender" and not self._has_gender:
                continue
            hits_B = (logits_BK.argmax(dim=-1) == target_B) * weight_B
            metrics[f"{name}_accuracy"] = (hits_B.sum(), float(batch.weight_B.sum()))
        return Losses(tuple(sums), metrics)

    def backbone(self, model: nn.Module) -> SpeechBackbone:
        if not isinstance(model, WarmupModel):
            raise TypeError(f"warmup trains a WarmupModel, got {type(model).__name__}")
        return model.backbone

    def export(self, model: nn.Module) -> dict[str, bytes]:
        files = model_to_files(self.backbone(model))
        # The gender of unlabelled speech is predicted with the heads. Without, nothing reads them.
        if isinstance(model, WarmupModel) and self._keeps_heads:
            files[HEADS_NAME] = heads_to_bytes(model)
        return files

    def _targets(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        emotion_B = [self._emotions.index(u.emotion) for u in batch.utterances]
        gender_B = [u.gender == GENDERS[1] for u in batch.utterances]
        return torch.tensor(emotion_B), torch.tensor(gender_B, dtype=torch.int64)
