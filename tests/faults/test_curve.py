"""The curve does not know what happened: 60 updates of ``retrain`` on tiny, in fp32, by real processes.

One uninterrupted training by two ranks is what all others are compared with, point by point.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from gangs import Fault, Witnessed, train_by
from one_process import FOLD, Tiny

from gmp_atl_dist.audio import num_frames
from gmp_atl_dist.config import RetrainConfig, TrainWorkersConfig
from gmp_atl_dist.store.artifact import Artifact, ArtifactKey, ArtifactWriter
from gmp_atl_dist.store.codebooks import Codebook
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.labels import UtteranceLabels, put_labels
from gmp_atl_dist.store.readers import read_curves, read_utterances
from gmp_atl_dist.training.loop import TrainJob

pytest_plugins = ["one_process"]
pytestmark = pytest.mark.timeout(600)

STEPS = 60
EVERY = 10
SAME = 1e-5
OTHER_ORDER_OF_SUMS = 1e-3
KS = (40, 3)
BOOKS = tuple(
    Codebook(i, 2, "all", 0, np.arange(k, dtype=np.float32)[:, None]) for i, k in enumerate(KS)
)


@dataclass(frozen=True)
class Case:
    """The same training in a store of its own."""

    job: TrainJob

    def by(self, world_size: int, fault: Fault | None = None, zero_stage: int = 1) -> list[int]:
        workers = TrainWorkersConfig.model_validate(
            {
                "workers": world_size,
                "zero_stage": zero_stage,
                "checkpoint_every_steps": EVERY,
                "collective_timeout_s": 60.0,
            }
        )
        job = TrainJob(self.job.recipe, self.job.store, self.job.key, workers)
        return train_by(job, world_size, fault)

    @property
    def artifact(self) -> Artifact:
        return ArtifactWriter(self.job.store, self.job.key).seal(version=1, science={}, inputs={})

    @property
    def resumed_at(self) -> list[int]:
        return json.loads(self.artifact.read_file("training.json"))["resumed_at"]

    def check_like(self, other: Case, rel: float) -> None:
        mine, expected = read_curves(self.artifact), read_curves(other.artifact)
        assert mine.keys() == expected.keys()
        for name, points in expected.items():
            assert [step for step, _ in mine[name]] == [step for step, _ in points]
            found = [value for _, value in mine[name]]
            # An accuracy moves by a whole frame where two clusters are all but equally likely.
            margin = 0.02 if name.startswith("accuracy") and rel > SAME else 0.0
            assert found == pytest.approx([v for _, v in points], rel=rel, abs=margin), name

    def check_samples(self) -> None:
        """Every utterance once an epoch; an update that was taken again heard the same ones."""
        recipe = self.job.recipe
        assert isinstance(recipe, Witnessed)
        heard = {tuple(line.split()) for line in recipe.seen.read_text().splitlines()}
        an_epoch = -(-len(recipe.utterances) // recipe.optim.batch_size)
        epochs = Counter((int(step) // an_epoch, name) for step, name in heard)
        assert set(epochs.values()) == {1}
        assert len(epochs) == STEPS // an_epoch * len(recipe.utterances)


def case(tiny: Tiny, folder: Path) -> Case:
    utterances = read_utterances(tiny.corpus)
    names = tuple(book.fingerprint for book in BOOKS)
    rows: list[UtteranceLabels] = []
    for u in FOLD.select(utterances, "train"):
        frames = np.arange(num_frames(u.num_samples), dtype="<i2")
        rows.append(UtteranceLabels(u.utterance_id, names, (frames % KS[0], frames % KS[1])))
    store = Store.open(str(folder / "root"))
    out = ArtifactWriter(store, ArtifactKey("label", "1" * 64))
    put_labels(out, "part", rows)
    labels = out.seal(version=1, science={}, inputs={})
    config = RetrainConfig.model_validate(
        {
            "steps": STEPS,
            "batch_size": 8,
            "micro_batches": 4,
            "lr": 1e-3,
            "dropout": 0.1,
            "projection_dim": 16,
        }
    )
    recipe = Witnessed(config, tiny.corpus, tiny.backbone, labels, BOOKS, FOLD.training(utterances))
    recipe.seen = folder / "seen"
    return Case(TrainJob(recipe, store, ArtifactKey("retrain", "f" * 64), TrainWorkersConfig()))


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


@pytest.mark.parametrize(("rank", "zero_stage"), [(0, 2), (1, 1)])
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


@pytest.mark.parametrize("rank", [0, 1])
def test_a_kill_amid_an_upload_leaves_the_checkpoint_before(
    undisturbed: Case, again: Case, rank: int
) -> None:
    codes = again.by(2, Fault(rank, 30, "upload"))
    assert codes[rank] == -9
    assert again.by(2) == [0, 0]

    assert again.resumed_at == [20]
    again.check_like(undisturbed, SAME)
    again.check_samples()


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


def test_from_one_to_two_and_from_zero_1_to_2_and_back(undisturbed: Case, again: Case) -> None:
    assert again.by(1, Fault(0, 18), 1) == [-9]
    assert 0 not in again.by(2, Fault(0, 33), 2)
    assert 0 not in again.by(2, Fault(1, 52), 1)
    assert again.by(1, zero_stage=1) == [0]

    assert len(again.resumed_at) == 3
    again.check_like(undisturbed, OTHER_ORDER_OF_SUMS)
    again.check_samples()
