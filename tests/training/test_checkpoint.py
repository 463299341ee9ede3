"""What is saved beside the weights, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from gmp_atl_dist.errors import CheckpointError
from gmp_atl_dist.training.checkpoint import Point, Progress, load_progress, save_progress


def test_it_comes_back(tmp_path: Path) -> None:
    progress = Progress(
        step=7,
        world_size=2,
        curve=[Point(step=1, name="loss", value=0.1 + 0.2)],
        best_epoch=3,
        best_uar=0.25,
        resumed_at=[4],
    )
    save_progress(tmp_path, progress)
    assert load_progress(tmp_path, 2) == progress


def test_another_number_of_workers_is_refused(tmp_path: Path) -> None:
    save_progress(tmp_path, Progress(step=7, world_size=2))
    with pytest.raises(CheckpointError, match=r"by 2 workers .* by 4; set runtime\.train\.workers"):
        load_progress(tmp_path, 4)


@pytest.mark.parametrize(
    "text", [None, "", "{", '{"world_size": 1, "surprise": 1}', '{"step": 3}', "\x00"]
)
def test_a_damaged_one_says_what_to_do(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "progress.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"progress\.json cannot be read .* checkpoints/"):
        load_progress(tmp_path, 1)
