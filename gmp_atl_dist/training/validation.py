"""Validation: the score of a model on the utterances that select the epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.distributed as dist
from torch import nn

from gmp_atl_dist.device import autocast
from gmp_atl_dist.errors import WorkerError
from gmp_atl_dist.metrics import confusion_matrix, scores_from_confusion
from gmp_atl_dist.store.index import IndexRow
from gmp_atl_dist.training.batches import Batch
from gmp_atl_dist.training.recipe import Recipe

_BATCH_UTTERANCES = 16


def validation_uar(
    recipe: Recipe,
    model: nn.Module,
    load: Callable[[Sequence[IndexRow]], Batch],
    device: torch.device,
    *,
    rank: int,
    world_size: int,
    goes_on: Callable[[], object] = lambda: None,
) -> float:
    """UAR over ``recipe.selection``, each rank scoring its share. Every rank must call it.

    ``goes_on`` is called after each batch.

    Raises:
        WorkerError: there is no utterance to validate on.
    """
    confusion = None
    # The precision of evaluate: an epoch is chosen for what the test will see.
    with torch.inference_mode(), autocast():
        for rows in _batches(recipe.selection[rank::world_size]):
            true, predicted, classes = recipe.predict(model, load(rows).to(device))
            part = torch.from_numpy(confusion_matrix(true, predicted, classes))
            confusion = part if confusion is None else confusion + part
            goes_on()
    gathered: list[torch.Tensor | None] = [None] * world_size
    dist.all_gather_object(gathered, confusion)
    total = sum(part for part in gathered if part is not None)
    if not isinstance(total, torch.Tensor):
        raise WorkerError(f"{recipe.name}: there is no utterance to select an epoch on")
    return scores_from_confusion(total.numpy()).uar


def _batches(utterances: Sequence[IndexRow]) -> Iterator[Sequence[IndexRow]]:
    """Utterances of similar lengths together."""
    ordered = sorted(utterances, key=lambda u: (u.num_samples, u.utterance_id))
    for start in range(0, len(ordered), _BATCH_UTTERANCES):
        yield ordered[start : start + _BATCH_UTTERANCES]
