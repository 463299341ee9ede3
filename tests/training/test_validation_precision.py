"""An epoch is validated in the precision, and by the score, in which the test speakers are scored."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.one_process import one_rank
from torch import nn

from gmp_atl_dist.training import validation


def test_an_epoch_is_validated_in_the_precision_of_evaluate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[torch.dtype] = []

    def predict(model: nn.Module, batch: Any) -> tuple[list[int], list[int], int]:
        seen.append(model(torch.ones(1, 2)).dtype)
        return [0, 1], [0, 1], 2

    utterance = SimpleNamespace(num_samples=400, utterance_id="a")
    recipe: Any = SimpleNamespace(name="finetune", selection=[utterance], predict=predict)
    load: Any = lambda rows: SimpleNamespace(to=lambda device: rows)  # noqa: E731
    # What a GPU with half precision does, on this device.
    monkeypatch.setattr(validation, "autocast", lambda: torch.autocast("cpu", torch.bfloat16))
    assert validated(recipe, load) == 1.0
    assert seen == [torch.bfloat16]


def test_an_epoch_is_validated_by_the_unweighted_recall() -> None:
    """Four of one class and one of another, all taken for the first: WAR would be 80 %."""
    utterances = [SimpleNamespace(num_samples=400, utterance_id=str(i)) for i in range(5)]

    def predict(model: nn.Module, batch: Any) -> tuple[list[int], list[int], int]:
        return [0, 0, 0, 0, 1], [0, 0, 0, 0, 0], 2

    recipe: Any = SimpleNamespace(name="finetune", selection=utterances, predict=predict)
    assert validated(recipe, lambda rows: SimpleNamespace(to=lambda device: rows)) == 0.5


def validated(recipe: Any, load: Any) -> float:
    """By one rank, in the process group that the tests of a process share."""
    with one_rank():
        return validation.validation_uar(
            recipe, nn.Linear(2, 2), load, torch.device("cpu"), rank=0, world_size=1
        )
