"""Classes of a training set: whether they can be learnt, and weights where they are not equally frequent."""

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
    """Refuse a training set of one emotion; say which classes nothing teaches.

    A loss of one class falls to zero, and the model that comes out says that class whatever it hears.

    Raises:
        CorpusError: names the emotion, and what to do.
    """
    counts = dict(zip(emotions, utterances.counts("emotion", emotions), strict=True))
    found = [emotion for emotion, count in counts.items() if count]
    if len(found) < 2:
        raise CorpusError(
            f"{stage}: all {len(utterances)} training utterances of fold {fold!r} are "
            f"{found[0]!r}, and telling emotions apart takes two; label others as well, or change "
            f"corpus.emotions, corpus.merge or folds.held_out"
        )
    absent = [emotion for emotion in emotions if emotion not in found]
    if absent:
        _log.warning(
            "%s: no training utterance of fold %r is %s; the class list keeps it, and what is of it "
            "in the test set will be taken for something else",
            stage,
            fold,
            " or ".join(map(repr, absent)),
        )


def class_weights(
    utterances: Utterances, classes: tuple[str, ...], attribute: str, balanced: bool
) -> torch.Tensor:
    """float32 [classes]: inverse frequency in the training set, mean 1 over utterances, or ones."""
    if not balanced:
        return torch.ones(len(classes))
    return balanced_class_weights(utterances.counts(attribute, classes))
