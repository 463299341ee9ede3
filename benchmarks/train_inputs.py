"""What the subjects of ``benchmarks.train`` train on, and what is noted of them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.speech import FOLD, context_at
from gmp_atl_dist.audio import SAMPLE_RATE_HZ, num_frames
from gmp_atl_dist.config import FinetuneConfig, RetrainConfig
from gmp_atl_dist.recipes.finetune import FinetuneRecipe
from gmp_atl_dist.recipes.retrain import RetrainRecipe
from gmp_atl_dist.stages.frontend import make_frontend
from gmp_atl_dist.store.artifact import (
    Artifact,
    ArtifactKey,
    ArtifactWriter,
    find_artifact,
    list_artifacts,
)
from gmp_atl_dist.store.codebooks import Codebook
from gmp_atl_dist.store.index import Utterances
from gmp_atl_dist.store.labels import UtteranceLabels, put_labels
from gmp_atl_dist.training.batches import Batch
from gmp_atl_dist.training.recipe import Forward, Losses, Recipe

RANKS = 2
K = 500
BATCH_S = 45.0
CLIP_NORM = 10.0
BOOK = Codebook(0, 9, "all", 0, np.arange(K, dtype=np.float32)[:, None])
LABELS = ArtifactKey("label", "1" * 64)


@dataclass(frozen=True)
class Figures:
    """Of one process, over the updates that count."""

    audio_s: float
    wall_s: float
    cpu_s: float
    useful: float
    """Of what the model heard, what was not padding."""
    data_wait_share: float = 0.0
    checkpoint_stall_s: float = 0.0


class _Timed(Recipe):
    """Notes when each forward pass begins, and how much it hears."""

    notes: Path

    def losses(self, forward: Forward, batch: Batch) -> Losses:
        heard_B = batch.num_samples_B
        note(self.notes, batch.step, int(heard_B.sum()), len(heard_B) * int(heard_B.max()))
        return super().losses(forward, batch)


class Timed(_Timed, RetrainRecipe):
    pass


class TimedFinetune(_Timed, FinetuneRecipe):
    pass


def note(path: Path, step: int, heard: int, whole: int) -> None:
    line = f"{step} {time.time()} {time.process_time()} {heard} {whole}\n"
    with path.open("a") as file:
        file.write(line)


def figures(path: Path, first: int, end: int) -> Figures:
    """Of updates ``first`` to ``end`` - 1; update ``end`` was begun."""
    rows = [tuple(map(float, line.split())) for line in path.read_text().splitlines()]
    began = {step: next(r for r in rows if r[0] == step) for step in (first, end)}
    counted = [r for r in rows if first <= r[0] < end]
    heard, whole = sum(r[3] for r in counted), sum(r[4] for r in counted)
    return Figures(
        heard / SAMPLE_RATE_HZ,
        began[end][1] - began[first][1],
        began[end][2] - began[first][2],
        heard / whole,
    )


def put_random_labels(corpus: str, root: str) -> None:
    context, ingested, _ = context_at(corpus, root)
    rng = np.random.default_rng(0)
    rows = [
        UtteranceLabels(
            u.utterance_id,
            (BOOK.fingerprint,),
            (rng.integers(0, K, num_frames(u.num_samples)).astype("<i2"),),
        )
        for u in Utterances(ingested, FOLD.train_speakers)
    ]
    out = ArtifactWriter(context.store, LABELS)
    put_labels(out, "part", rows)
    out.seal(version=1, science={}, inputs={})


def keep_frontend(corpus: str, root: str) -> None:
    context, ingested, backbone = context_at(corpus, root)
    with context.cluster:
        context.cluster.open()
        make_frontend(context, ingested, backbone)


def kept_frontend(corpus: str, root: str) -> Artifact:
    store = context_at(corpus, root)[0].store
    (key,) = [key for key in list_artifacts(store) if key.kind == "frontend"]
    found = find_artifact(store, key)
    assert found is not None, "made before"
    return found


def retrain_recipe(
    corpus: str, root: str, notes: Path, steps: int, *, freeze_conv: bool = False
) -> Timed:
    context, ingested, backbone = context_at(corpus, root)
    labels = find_artifact(context.store, LABELS)
    assert isinstance(labels, Artifact), "made before"
    config = RetrainConfig(
        steps=steps,
        batch_s=BATCH_S,
        micro_batches=RANKS,
        dropout=0.1,
        clip_norm=CLIP_NORM,
        freeze_conv=freeze_conv,
    )
    speakers = FOLD.training_speakers()
    recipe = Timed(config, ingested, backbone, labels, (BOOK,), speakers)
    recipe.notes = notes
    return recipe


def finetune_recipe(corpus: str, root: str, notes: Path, steps: int) -> TimedFinetune:
    _, ingested, backbone = context_at(corpus, root)
    config = FinetuneConfig(
        epochs=None,
        steps=steps,
        batch_s=BATCH_S,
        micro_batches=RANKS,
        clip_norm=CLIP_NORM,
        freeze_conv=True,
        select="last",
    )
    recipe = TimedFinetune(config, ingested, backbone, FOLD.training_speakers(), ())
    recipe.notes = notes
    return recipe
