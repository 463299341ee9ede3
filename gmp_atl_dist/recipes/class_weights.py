"""Classes of a training set: a check that there are two, and weights for unequal class frequencies."""

from __future__ import annotations

import logging

import torch

from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.models.losses import balanced_class_weights
from gmp_atl_dist.store.index import Utterances

_log = logging.getLogger(__name__)


def check_emotions(
    utterances: Utterances, emotions: tuple[str, ...], stage: str, fold: str
) -> None:
    """Refuse a training set of one emotion, and warn about classes without a training utterance.

    With one class the loss falls to zero, and the model predicts that class for any input.

    Raises:
        CorpusError: there is one emotion only; names it, and what to do.
    """
    counts = dict(zip(emotions, utterances.counts("emotion", emotions), strict=True))
    present = [emotion for emotion, count in counts.items() if count]
    if len(present) < 2:
        raise CorpusError(
            f"{stage}: all {len(utterances)} training utterances of fold {fold!r} are "
            f"{present[0]!r}, and training needs at least two emotions; label others as well, or change "
            f"corpus.emotions, corpus.merge or folds.held_out"
        )
    absent = [emotion for emotion in emotions if emotion not in present]
    if absent:
        _log.warning(
            "%s: no training utterance of fold %r is %s; the class stays in the class list, and test "
            "utterances of it will be predicted as another class",
            stage,
            fold,
            " or ".join(map(repr, absent)),
        )


def class_weights(
    utterances: Utterances, classes: tuple[str, ...], attribute: str, balanced: bool
) -> torch.Tensor:
    """float32 [classes]: inverse frequencies of what training draws, with mean 1 over utterances, or ones."""
    if not balanced:
        return torch.ones(len(classes))
    return balanced_class_weights(utterances.drawn(attribute, classes))
