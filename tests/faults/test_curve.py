"""The curve does not know what happened: 60 updates of ``retrain`` on tiny, in fp32, by real processes.

One uninterrupted training by two ranks is what all others are compared with, point by point.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.gangs import Fault, train_by
from support.one_process import FOLD, Tiny
from support.retrain_case import EVERY, OTHER_ORDER_OF_SUMS, SAME, STEPS, Case, case

from gmp_atl_dist.config import Json, TrainWorkersConfig, WarmupConfig
from gmp_atl_dist.recipes.warmup import WarmupRecipe
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.readers import read_curves
from gmp_atl_dist.store.writer import ArtifactWriter
from gmp_atl_dist.training.loop import TrainJob

pytest_plugins = ["support.one_process"]
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def undisturbed(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Case:
    made = case(tiny, tmp_path_factory.mktemp("undisturbed"))
    assert made.by(2) == [0, 0]
    made.check_samples()
    losses = [value for _, value in read_curves(made.artifact)["loss"]]
    assert len(losses) == STEPS
    assert losses[-1] < 0.9 * losses[0], "there is something to compare"
    return made


@pytest.fixture
def again(tiny: Tiny, tmp_path: Path) -> Case:
    return case(tiny, tmp_path)


@pytest.mark.parametrize(
    ("rank", "zero_stage"), [(0, 2), pytest.param(1, 1, marks=pytest.mark.slow)]
)
def test_a_killed_rank_leaves_the_same_curve(
    undisturbed: Case, again: Case, rank: int, zero_stage: int
) -> None:
    step = int(np.random.default_rng(rank).integers(EVERY + 5, STEPS - 5))
    codes = again.by(2, Fault(rank, step), zero_stage)
    assert codes[rank] == -9
    assert 0 not in codes, "the other one does not go on alone, nor wait"
    assert again.by(2, zero_stage=zero_stage) == [0, 0]

    (resumed,) = again.resumed_at
    assert 0 < resumed <= step
    again.check_like(undisturbed, SAME)
    again.check_samples()


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_kill_amid_an_upload_leaves_the_checkpoint_before(
    undisturbed: Case, again: Case, rank: int
) -> None:
    codes = again.by(2, Fault(rank, 30, "upload"))
    assert codes[rank] == -9
    assert again.by(2) == [0, 0]

    assert again.resumed_at == [20]
    again.check_like(undisturbed, SAME)
    again.check_samples()


@pytest.mark.slow
@pytest.mark.parametrize(("zero_stage", "ranks"), [(1, 4), (2, 1)])
def test_other_numbers_of_ranks_go_on_with_it(
    undisturbed: Case, again: Case, zero_stage: int, ranks: int
) -> None:
    assert 0 not in again.by(2, Fault(1, 35), zero_stage)
    assert again.by(ranks, zero_stage=zero_stage) == [0] * ranks

    (resumed,) = again.resumed_at
    assert 0 < resumed <= 35
    again.check_like(undisturbed, OTHER_ORDER_OF_SUMS)
    again.check_samples()


@pytest.mark.nightly
def test_from_one_to_two_and_from_zero_1_to_2_and_back(undisturbed: Case, again: Case) -> None:
    assert again.by(1, Fault(0, 18), 1) == [-9]
    assert 0 not in again.by(2, Fault(0, 33), 2)
    assert 0 not in again.by(2, Fault(1, 52), 1)
    assert again.by(1, zero_stage=1) == [0]

    assert len(again.resumed_at) == 3
    again.check_like(undisturbed, OTHER_ORDER_OF_SUMS)
    again.check_samples()


OPTIONS: dict[str, Json] = {
    **{"layer_drop": 0.2, "feature_grad_mult": 0.1, "adam_eps": 1e-6, "unmasked_weight": 0.3},
    **{"head_lr_factor": 2.0, "layer_lr_decay": 0.8, "freeze_backbone_steps": 15},
    **{"scale_weights": [1.0, 0.5], "scale_reduction": "sum"},
}


@pytest.fixture(scope="module")
def with_options(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Case:
    made = case(tiny, tmp_path_factory.mktemp("options"), **OPTIONS)
    assert made.by(2) == [0, 0]
    return made


@pytest.mark.nightly
@pytest.mark.parametrize(("zero_stage", "kill"), [(1, 13), (2, 38), (3, 25)])
def test_the_options_of_training_survive_a_kill(
    with_options: Case, tiny: Tiny, tmp_path: Path, zero_stage: int, kill: int
) -> None:
    """While the backbone is frozen, and after."""
    undisturbed = with_options
    if zero_stage == 3:
        # Dropout of the reference path, which ZeRO 3 takes, is another sample.
        undisturbed = case(tiny, tmp_path / "undisturbed", **OPTIONS)
        assert undisturbed.by(2, zero_stage=3) == [0, 0]
    again = case(tiny, tmp_path / "again", **OPTIONS)
    assert 0 not in again.by(2, Fault(1, kill), zero_stage)
    assert again.by(2, zero_stage=zero_stage) == [0, 0]

    (resumed,) = again.resumed_at
    assert 0 < resumed <= kill
    again.check_like(undisturbed, SAME)
    again.check_samples()


@pytest.mark.slow
def test_the_options_of_training_go_on_with_other_numbers_of_ranks(
    with_options: Case, tiny: Tiny, tmp_path: Path
) -> None:
    again = case(tiny, tmp_path, **OPTIONS)
    # Some updates after a checkpoint, which is stored beside the work and must be there.
    assert again.by(1, Fault(0, 18), 1) == [-9]
    assert 0 not in again.by(4, Fault(3, 38), 2)
    assert again.by(2, zero_stage=1) == [0, 0]

    assert len(again.resumed_at) == 2
    again.check_like(with_options, OTHER_ORDER_OF_SUMS)
    again.check_samples()


@pytest.mark.slow
def test_a_rank_without_a_share_of_a_small_group_goes_on(tiny: Tiny, tmp_path: Path) -> None:
    """The biases of the heads are 6 numbers, of which the last of four ranks has none."""
    config = WarmupConfig.model_validate(
        {**{"steps": 12, "batch_s": 3.0, "lr": 1e-3, "dropout": 0.0}, "head_lr_factor": 2.0}
    )
    recipe = WarmupRecipe(config, tiny.corpus, tiny.backbone, FOLD.training_speakers())
    workers = TrainWorkersConfig(checkpoint_every_steps=4, collective_timeout_s=60.0)

    def job(name: str) -> TrainJob:
        store = Store.open(str(tmp_path / name))
        return TrainJob(recipe, store, ArtifactKey("warmup", "f" * 64), workers)

    def loss(of: TrainJob) -> list[float]:
        made = ArtifactWriter(of.store, of.key).seal(version=1, science={}, inputs={})
        return [value for _, value in read_curves(made)["loss"]]

    whole, torn = job("whole"), job("torn")
    assert train_by(whole, 2) == [0, 0]
    assert train_by(torn, 2, Fault(1, 6))[1] == -9
    assert train_by(torn, 4, Fault(1, 10))[1] == -9, "four ranks came as far as that"
    assert train_by(torn, 2) == [0, 0]
    assert loss(torn) == pytest.approx(loss(whole), rel=OTHER_ORDER_OF_SUMS)
