"""What the recipes share of the options of training: the backbone's, and the masks of SpecAugment.

Shapes: B utterances, M frames of all of them, D features.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gmp_atl_dist.audio import num_frames
from gmp_atl_dist.config import AugmentedConfig, OptimConfig
from gmp_atl_dist.models.backbone import SpeechBackbone
from gmp_atl_dist.models.masking import span_mask
from gmp_atl_dist.seeding import keyed_rng, keyed_seed
from gmp_atl_dist.training.batches import Batch


def prepare_backbone(backbone: SpeechBackbone, config: OptimConfig) -> None:
    """Set dropout, and mark what is frozen, scaled or dropped. The weights must be loaded before.

    Raises:
        ModelError: ``layer_drop`` is set, and the backbone does not say which its layers are.
    """
    backbone.set_dropout(config.dropout)
    if config.freeze_conv:
        backbone.freeze_front_end()
    backbone.front_end_gradient = config.feature_grad_mult
    if config.layer_drop > 0:
        backbone.enable_layer_drop()
    if isinstance(config, AugmentedConfig) and config.mask_time_prob > 0:
        backbone.train_mask_embedding(True)


def dropout_seeds(config: OptimConfig, batch: Batch) -> list[int]:
    """Of each utterance in this update; they do not depend on how the update's batch is cut."""
    return [
        keyed_seed("dropout", config.seed, batch.step, utterance.utterance_id)
        for utterance in batch.utterances
    ]


def augmentation_masks(config: AugmentedConfig, batch: Batch, dim: int) -> dict[str, Tensor]:
    """SpecAugment of a training batch: ``mask_M`` of frames, ``mask_BD`` of features; each if it is on.

    wav2vec 2.0 (arXiv 2006.11477, section 4.2) masks so in fine-tuning: frames become the mask embedding,
    features become zero. Here the masks of an utterance follow from the seed, the epoch and its id alone, so
    they do not depend on the batch or on the number of workers.
    """
    ids = [utterance.utterance_id for utterance in batch.utterances]
    device = batch.wave_BN.device
    masks: dict[str, Tensor] = {}
    if config.mask_time_prob > 0:
        lengths = [num_frames(int(n)) for n in batch.num_samples_B.tolist()]
        of_clips = [
            span_mask(
                length,
                prob=config.mask_time_prob,
                length_frames=config.mask_time_length_frames,
                rng=keyed_rng("time mask", config.seed, batch.epoch, name),
                fewest=0,
            )
            for name, length in zip(ids, lengths, strict=True)
        ]
        masks["mask_M"] = torch.from_numpy(np.concatenate(of_clips)).to(device)
    if config.mask_feature_prob > 0:
        rows = [
            span_mask(
                dim,
                prob=config.mask_feature_prob,
                length_frames=config.mask_feature_length,
                rng=keyed_rng("feature mask", config.seed, batch.epoch, name),
                fewest=0,
            )
            for name in ids
        ]
        masks["mask_BD"] = torch.from_numpy(np.stack(rows)).to(device)
    return masks
