"""What is saved beside the weights, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from gmp_atl_dist.errors import CheckpointError
from gmp_atl_dist.training.checkpoint import CurvePoint, TrainingState, load_state, save_state


def test_it_comes_back(tmp_path: Path) -> None:
    progress = TrainingState(
        step=7,
        curve=[CurvePoint(step=1, name="loss", value=0.1 + 0.2)],
        best_epoch=3,
        best_uar=0.25,
        skipped_at=[2],
        resumed_at=[4],
    )
    save_state(tmp_path, 0, progress, {"loss": (0.5, 2.0)})
    assert load_state(tmp_path, 0, 1) == (progress, {"loss": (0.5, 2.0)})


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_what_three_ranks_measured_is_divided_among_others(tmp_path: Path, ranks: int) -> None:
    for rank in range(3):
        save_state(tmp_path, rank, TrainingState(step=7), {"loss": (2.0**rank, 1.0)})
    found = [load_state(tmp_path, rank, ranks)[1].get("loss", (0.0, 0.0)) for rank in range(ranks)]

    assert sum(total for total, _ in found) == 7.0
    assert sum(count for _, count in found) == 3.0


@pytest.mark.parametrize(
    "text", [None, "", "{", '{"world_size": 1, "surprise": 1}', '{"step": -', "\x00"]
)
def test_a_damaged_one_says_what_to_do(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "state.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"training state cannot be read .* checkpoints/"):
        load_state(tmp_path, 0, 1)
