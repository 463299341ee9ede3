"""What a checkpoint holds is what loading it accepts, with any Python 3.11."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from deepspeed.runtime.zero.config import ZeroStageEnum

from gmp_atl_dist.training.universal import loading, store_as_plain_values


def by_name(member: ZeroStageEnum, protocol: object) -> tuple[object, ...]:
    """As Python 3.11.0 to 3.11.3 pickle a member of an enumeration."""
    return getattr, (type(member), member.name)


def test_the_zero_stage_is_stored_by_its_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Debian's Python 3.11.2, no training could be resumed: its checkpoint called ``getattr``."""
    monkeypatch.setattr(ZeroStageEnum, "__reduce_ex__", by_name)
    stored = tmp_path / "shard.pt"
    store_as_plain_values()
    torch.save({"zero_stage": ZeroStageEnum.gradients}, stored)
    with loading(tmp_path):
        assert torch.load(stored, weights_only=True) == {"zero_stage": ZeroStageEnum.gradients}


def test_what_calls_a_function_is_refused(tmp_path: Path) -> None:
    class Calls:
        def __reduce__(self) -> tuple[object, ...]:
            return getattr, (Path, "home")

    stored = tmp_path / "shard.pt"
    torch.save({"zero_stage": Calls()}, stored)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(stored, weights_only=True)
