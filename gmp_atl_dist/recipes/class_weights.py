"""Weights of classes that are not equally frequent."""

from __future__ import annotations

import torch

from gmp_atl_dist.models.losses import balanced_class_weights
from gmp_atl_dist.records import TrainingSet


def class_weights(
    training: TrainingSet, classes: tuple[str, ...], attribute: str, balanced: bool
) -> torch.Tensor:
    """float32 [classes]: inverse frequency in the training set, mean 1 over utterances, or ones."""
    if not balanced:
        return torch.ones(len(classes))
    values = [getattr(u, attribute) for u in training.utterances]
    return balanced_class_weights([values.count(name) for name in classes])
