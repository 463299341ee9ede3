"""The recipe of ``retrain`` and ``pretrain``: prediction of frame labels, with one head per scale.

Masked prediction (HuBERT, arXiv 2106.07447, eq. 1-3): cross-entropy over masked frames of cosine
logits divided by a temperature, plus ``unmasked_weight`` times that over the other frames (fairseq's
``pred_nomask_weight``) and a penalty on the convolutional features. The loss of several scales is their mean,
or what ``scale_weights`` and ``scale_reduction`` say.
``masked = false`` is plain cross-entropy over all frames.

Shape suffixes: B utterances, T frames of one, M frames of all of them, X frames that count, S scales.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import nn

from gmp_atl_dist.audio import num_frames
from gmp_atl_dist.config import FramePredictionConfig, RetrainConfig
from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.models.backbone import SpeechBackbone
from gmp_atl_dist.models.losses import (
    ScaleJoin,
    check_labels,
    feature_penalty_sum,
    frame_prediction_sums,
)
from gmp_atl_dist.models.masking import span_mask
from gmp_atl_dist.models.multitask import RetrainModel, RetrainOutput
from gmp_atl_dist.models.slots import HostPlan
from gmp_atl_dist.models.source import backbone_from_files, model_to_files
from gmp_atl_dist.recipes.options import dropout_seeds, prepare_backbone
from gmp_atl_dist.seeding import keyed_rng
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.codebooks import Codebook, books_by_scale
from gmp_atl_dist.store.index import training_utterances
from gmp_atl_dist.store.labels import LabelReader
from gmp_atl_dist.store.training_set import TrainingSet
from gmp_atl_dist.training.batches import Batch
from gmp_atl_dist.training.recipe import Forward, Losses, Recipe
from gmp_atl_dist.transfers import current_lane, send_array


class RetrainRecipe(Recipe):
    """Masked (or plain) prediction of frame labels at every scale."""

    def __init__(
        self,
        config: FramePredictionConfig,
        training: TrainingSet,
        backbone: Artifact,
        labels: Artifact,
        codebooks: tuple[Codebook, ...],
        name: str = "retrain",
    ) -> None:
        self.name = name
        self.optim = config
        self._config = config
        self.corpus = training.corpus
        self.utterances = training_utterances(training.corpus, training.training_speakers)
        if isinstance(config, RetrainConfig):
            self.unlabelled_share = config.unlabelled_share
        self._uses_unmasked = config.masked and config.unmasked_weight > 0
        unmasked = (config.unmasked_weight,) if self._uses_unmasked else ()
        self.factors = (1.0, config.feature_penalty, *unmasked)
        self._backbone = backbone
        self._labels = labels
        self._codebooks = codebooks
        self._join = ScaleJoin()
        if isinstance(config, RetrainConfig):
            self._join = ScaleJoin(config.scale_weights, config.scale_reduction)
        self._num_labels = tuple(max(b.end for b in scale) for scale in books_by_scale(codebooks))

    def build(self) -> nn.Module:
        backbone = backbone_from_files(self._backbone.read_files())
        prepare_backbone(backbone, self._config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._config.seed)
            return RetrainModel(
                backbone,
                ks=self._num_labels,
                masked=self._config.masked,
                projection_dim=self._config.projection_dim,
                temperature=self._config.logit_temperature,
            )

    @cached_property
    def _reader(self) -> LabelReader:
        """Opened by each worker, because a reader is not pickled. It refuses labels of other codebooks."""
        return LabelReader(self._labels, self._codebooks)

    def counts(self, batch: Batch) -> tuple[float, ...]:
        lengths = [num_frames(int(n)) for n in batch.num_samples_B]
        weights = batch.weight_B.tolist()
        chosen = [m.sum() for m in self._masks(batch, lengths)]
        masked = float(sum(w * c for w, c in zip(weights, chosen, strict=True)))
        valid = float(sum(w * n for w, n in zip(weights, lengths, strict=True)))
        return (masked, valid, *((valid - masked,) if self._uses_unmasked else ()))

    def losses(self, forward: Forward, batch: Batch) -> Losses:
        lengths = [num_frames(int(n)) for n in batch.num_samples_B.tolist()]
        mask_M = np.concatenate(self._masks(batch, lengths))
        # Where frames that are not masked teach nothing, the heads do not compute them.
        counted = np.arange(len(mask_M)) if self._uses_unmasked else np.flatnonzero(mask_M)
        labels_SX = self._targets(batch, lengths)[:, counted]
        check_labels(labels_SX, self._num_labels)
        plan, lane = HostPlan(), current_lane()
        for numbers in (labels_SX, counted, mask_M):
            plan.add(numbers)
        labels, counted_X, masked = plan.send(lane)
        weight_M = np.repeat(batch.weight_B.numpy(), lengths)
        own = mask_M[counted] * weight_M[counted], ~mask_M[counted] * weight_M[counted]
        weights = send_array(lane, np.concatenate([*own, weight_M]).astype(np.float32))
        masked_X, rest_X, all_M = weights.split([len(counted), len(counted), len(mask_M)])
        output = forward(
            batch.model_input,
            batch.num_samples_B,
            labels.long(),
            mask_M=masked.bool() if self._config.masked else None,
            counted_X=None if len(counted) == len(mask_M) else counted_X,
            seeds=dropout_seeds(self._config, batch),
        )
        if not isinstance(output, RetrainOutput):
            raise TypeError(f"{self.name} expects a RetrainOutput, got {type(output).__name__}")
        predicted = frame_prediction_sums(output.terms, masked_X, self._join)
        penalty, _ = feature_penalty_sum(output.conv_features_MC, all_M)
        tries = float((mask_M * weight_M).sum())
        metrics = {
            f"{name}_scale{i}": (total, tries)
            for name, sum_S in (("accuracy", predicted.correct_S), ("loss", predicted.loss_S))
            for i, total in enumerate(sum_S.unbind())
        }
        sums = [predicted.loss, penalty]
        if self._uses_unmasked:
            sums.append(frame_prediction_sums(output.terms, rest_X, self._join).loss)
        return Losses(tuple(sums), metrics)

    def backbone(self, model: nn.Module) -> SpeechBackbone:
        if not isinstance(model, RetrainModel):
            raise TypeError(f"{self.name} trains a RetrainModel, got {type(model).__name__}")
        return model.backbone

    def export(self, model: nn.Module) -> dict[str, bytes]:
        return model_to_files(self.backbone(model))

    def _masks(self, batch: Batch, lengths: list[int]) -> list[np.ndarray]:
        """bool [T] per utterance: the frames to predict. The same for any number of workers."""
        if not self._config.masked:
            return [np.ones(length, dtype=bool) for length in lengths]
        return [
            span_mask(
                length,
                prob=self._config.mask_prob,
                length_frames=self._config.mask_length_frames,
                rng=keyed_rng("mask", self._config.seed, batch.epoch, utterance.utterance_id),
            )
            for utterance, length in zip(batch.utterances, lengths, strict=True)
        ]

    def _targets(self, batch: Batch, lengths: list[int]) -> np.ndarray:
        """int64 [S, M]: labels of the crops."""
        labels_SM = np.empty((len(self._num_labels), sum(lengths)), np.int64)
        end = 0
        for utterance, first, length in zip(
            batch.utterances, batch.first_frames, lengths, strict=True
        ):
            start, end = end, end + length
            expected = num_frames(utterance.num_samples)
            for i, ids in enumerate(self._reader.ids(utterance.utterance_id)):
                if len(ids) != expected:
                    raise ModelError(
                        f"utterance {utterance.utterance_id!r}: {len(ids)} labels of scale {i} for "
                        f"{expected} frames; run gmp-atl verify"
                    )
                labels_SM[i, start:end] = ids[first : first + length]
        return labels_SM
