"""One small ``retrain`` of 60 updates whose curve and utterances are compared after any fault."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from gmp_atl_dist.audio import num_frames
from gmp_atl_dist.config import Json, RetrainConfig, TrainWorkersConfig
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.codebooks import Codebook
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.labels import UtteranceLabels, put_labels
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.readers import read_curves, read_utterances
from gmp_atl_dist.store.training_set import TrainingSet
from gmp_atl_dist.store.writer import ArtifactWriter
from gmp_atl_dist.training.loop import TrainJob
from support.gangs import Fault, Witnessed, train_by
from support.one_process import FOLD, Tiny

STEPS = 60
UPDATES_AN_EPOCH = 3
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
        return train_by(self.with_workers(workers), world_size, fault)

    @property
    def recipe(self) -> Witnessed:
        assert isinstance(self.job.recipe, Witnessed)
        return self.job.recipe

    def with_workers(self, workers: TrainWorkersConfig) -> TrainJob:
        return replace(self.job, workers=workers)

    def checkpoint_steps(self) -> list[int]:
        """Of those that are whole."""
        entries = self.job.store.list(f"checkpoints/{self.job.key.fingerprint}")
        whole = [e.path.split("/")[2] for e in entries if e.path.endswith("/_record.json")]
        return sorted(int(name.partition("-")[0]) for name in whole)

    def progress(self) -> int:
        """Updates begun."""
        seen = self.recipe.seen
        return (
            len({line.split()[0] for line in seen.read_text().splitlines()}) if seen.exists() else 0
        )

    def world_sizes(self) -> list[int]:
        """How many ranks each start had."""
        worlds = self.recipe.seen.with_name("worlds")
        return [int(line) for line in worlds.read_text().split()] if worlds.exists() else []

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
        recipe = self.recipe
        heard = {tuple(line.split()) for line in recipe.seen.read_text().splitlines()}
        an_epoch = UPDATES_AN_EPOCH
        epochs = Counter((int(step) // an_epoch, name) for step, name in heard)
        assert set(epochs.values()) == {1}
        assert len(epochs) == STEPS // an_epoch * len(recipe.utterances)


def case(tiny: Tiny, folder: Path, **keys: Json) -> Case:
    """``keys`` are of the configuration, beside those that all cases share."""
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
            "batch_s": 3.0,
            "micro_batches": 2,
            "lr": 1e-3,
            "dropout": 0.1,
            "projection_dim": 16,
            **keys,
        }
    )
    training = TrainingSet(tiny.corpus, FOLD.training_speakers())
    recipe = Witnessed(config, training, tiny.backbone, labels, BOOKS)
    recipe.seen = folder / "seen"
    return Case(TrainJob(recipe, store, ArtifactKey("retrain", "f" * 64), TrainWorkersConfig()))
