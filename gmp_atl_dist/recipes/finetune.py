"""The recipe of ``finetune``: one emotion per utterance, with the pooling and loss of the configuration.

The default loss is AM-Softmax (Wang et al. 2018, arXiv 1801.05599). The total is the weighted sum of the
utterances' losses, divided by the sum of the class weights over the whole batch.
"""

from __future__ import annotations

import torch
from torch import nn

from gmp_atl_dist.config import FinetuneConfig
from gmp_atl_dist.fold import TrainingSpeakers
from gmp_atl_dist.models.backbone import SpeechBackbone
from gmp_atl_dist.models.emotion import EmotionModel
from gmp_atl_dist.models.head_registry import WITH_MARGIN
from gmp_atl_dist.models.heads import LossTerms
from gmp_atl_dist.models.losses import weighted_sum
from gmp_atl_dist.models.margin_losses import MarginSoftmax
from gmp_atl_dist.models.source import backbone_from_files, model_to_files
from gmp_atl_dist.models.warmed_up import HEADS_NAME
from gmp_atl_dist.recipes.class_weights import check_emotions, class_weights
from gmp_atl_dist.recipes.options import augmentation_masks, dropout_seeds, prepare_backbone
from gmp_atl_dist.records import Channel
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.index import Utterances, training_utterances
from gmp_atl_dist.store.readers import read_channel, read_emotions
from gmp_atl_dist.training.batches import Batch
from gmp_atl_dist.training.recipe import Forward, Losses, Recipe


class FinetuneRecipe(Recipe):
    """Classification of one emotion per utterance."""

    name = "finetune"
    factors = (1.0,)

    def __init__(
        self,
        config: FinetuneConfig,
        corpus: Artifact,
        begin: Artifact,
        training: TrainingSpeakers,
        selection_speakers: tuple[str, ...],
        selection_utterances: frozenset[str] | None = None,
    ) -> None:
        self.optim = config
        self._config = config
        # The accuracy of training logits. A margin lowers it, and the curve's name says so.
        with_margin = config.loss in WITH_MARGIN
        self._accuracy_name = "accuracy_with_margin" if with_margin else "training_accuracy"
        self.corpus = corpus
        self.utterances = training_utterances(corpus, training.with_emotions(self.name))
        self.selection = Utterances(corpus, selection_speakers, selection_utterances)
        self._begin = begin
        self._hidden_size = 0  # known once the model is built
        self._emotions = read_emotions(corpus)
        self._channel: Channel = read_channel(corpus)
        check_emotions(self.utterances, self._emotions, self.name, training.fold.name)
        counts = self.utterances.counts("emotion", self._emotions)
        self.chance = max(counts) / sum(counts)
        balanced = config.class_weights == "balanced"
        self._weights = class_weights(self.utterances, self._emotions, "emotion", balanced)

    def build(self) -> nn.Module:
        files = self._begin.read_files()
        others = ("training.json", HEADS_NAME)
        backbone = backbone_from_files({n: d for n, d in files.items() if n not in others})
        self._hidden_size = backbone.hidden_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._config.seed)
            model = EmotionModel.from_backbone(
                backbone,
                emotions=self._emotions,
                embedding_dim=self._config.embedding_dim,
                pooling=self._config.pooling,
                pooling_options=self._config.pooling_options,
                loss=self._config.loss,
                loss_options=self._config.loss_options,
                am_scale=self._config.am_scale,
                am_margin=self._config.am_margin,
                pool_layers=self._config.pool_layers,
                channel=self._channel,
            )
        model.head_dropout.p = self._config.head_dropout
        prepare_backbone(model.backbone, self._config)
        if self._config.freeze_backbone:
            # As in SUPERB, the features of a frozen model are those of inference.
            model.backbone.set_dropout(0.0)
            model.backbone.requires_grad_(False)
        return model

    def start_update(self, model: nn.Module, step: int, total_steps: int) -> None:
        if self._config.margin_warmup_fraction == 0:
            return
        if isinstance(model, EmotionModel) and isinstance(model.classifier, MarginSoftmax):
            model.classifier.margin = margin_at(self._config, step, total_steps)

    def counts(self, batch: Batch) -> tuple[float, ...]:
        return (float((self._weights[self._targets(batch)] * batch.weight_B).sum()),)

    def losses(self, forward: Forward, batch: Batch) -> Losses:
        target_B = self._targets(batch).to(batch.wave_BN.device)
        weight_B = batch.weight_B.to(target_B.device, non_blocking=True)
        masks = augmentation_masks(self._config, batch, self._hidden_size)
        seeds = dropout_seeds(self._config, batch)
        terms = forward(batch.model_input, batch.num_samples_B, target_B, seeds=seeds, **masks)
        if not isinstance(terms, LossTerms):
            raise TypeError(f"finetune expects LossTerms, got {type(terms).__name__}")
        total, _ = weighted_sum(
            terms.loss_B, target_B, self._weights.to(terms.loss_B.device), weight_B
        )
        tries = float(batch.weight_B.sum())
        hits_B = (terms.logits_BK.argmax(dim=-1) == target_B) * weight_B
        accuracy = (hits_B.sum(), tries)
        logits_BK = terms.logits_BK
        if terms.without_margin_BK is not None:
            logits_BK = terms.without_margin_BK
        hits_B = (logits_BK.argmax(dim=-1) == target_B) * weight_B
        hits = (hits_B.sum(), tries)
        return Losses((total,), {self._accuracy_name: accuracy}, hits)

    def predict(self, forward: Forward, batch: Batch) -> tuple[list[int], list[int], int]:
        logits_BK = forward(batch.model_input, batch.num_samples_B)
        if not isinstance(logits_BK, torch.Tensor):
            raise TypeError(f"finetune expects logits, got {type(logits_BK).__name__}")
        predicted = logits_BK.argmax(dim=-1).tolist()
        return self._targets(batch).tolist(), predicted, len(self._emotions)

    def backbone(self, model: nn.Module) -> SpeechBackbone:
        if not isinstance(model, EmotionModel):
            raise TypeError(f"finetune trains an EmotionModel, got {type(model).__name__}")
        return model.backbone

    def export(self, model: nn.Module) -> dict[str, bytes]:
        if not isinstance(model, EmotionModel):
            raise TypeError(f"finetune exports an EmotionModel, got {type(model).__name__}")
        return model_to_files(model)

    def _targets(self, batch: Batch) -> torch.Tensor:
        return torch.tensor([self._emotions.index(u.emotion) for u in batch.utterances])


def margin_at(config: FinetuneConfig, step: int, total_steps: int) -> float:
    """The margin of update ``step``, counted from 0.

    It rises linearly over ``margin_warmup_fraction`` of the updates, and is 0 in the first one. It follows
    from the step alone, so a resumed training continues with the same one.
    """
    rising = round(config.margin_warmup_fraction * total_steps)
    return config.am_margin * min(1.0, step / rising) if rising else config.am_margin
