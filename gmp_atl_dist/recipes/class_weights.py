"""Weights of classes that are not equally frequent."""

from __future__ import annotations

import torch

from gmp_atl_dist.models.losses import balanced_class_weights
from gmp_atl_dist.store.index import Utterances


def class_weights(
    utterances: Utterances, classes: tuple[str, ...], attribute: str, balanced: bool
) -> torch.Tensor:
    """float32 [classes]: inverse frequency in the training set, mean 1 over utterances, or ones."""
    if not balanced:
        return torch.ones(len(classes))
    return balanced_class_weights(utterances.counts(attribute, classes))
