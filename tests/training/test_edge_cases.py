"""Corpora and models at the edge, through the real loop: each trains, or is refused with a remedy.

More micro-batches than utterances, a corpus below one batch and a rank with nothing to do are in
``test_update_gradient.py``, which looks at the gradient as well.
"""

from __future__ import annotations

import csv
import logging
import math
import wave
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from support.one_process import OneRank, Tiny, context_of, ingest, no_ray, train_here
from torch import nn

from gmp_atl_dist.config import (
    FinetuneConfig,
    Json,
    RetrainConfig,
    TrainWorkersConfig,
    WarmupConfig,
)
from gmp_atl_dist.errors import CorpusError, ModelError
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.recipes.finetune import FinetuneRecipe
from gmp_atl_dist.recipes.retrain import RetrainRecipe
from gmp_atl_dist.recipes.warmup import WarmupRecipe
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.codebooks import Codebook
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.index import Utterances
from gmp_atl_dist.store.labels import UtteranceLabels, put_labels
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.readers import read_curves
from gmp_atl_dist.store.training_set import TrainingSet
from gmp_atl_dist.store.writer import ArtifactWriter
from gmp_atl_dist.training.loop import TrainJob
from gmp_atl_dist.training.recipe import Recipe

pytest_plugins = ["support.one_process"]

FOLD = Fold(name="split", train_speakers=("ann", "bob"), test_speakers=("eve",))
ONE_FRAME_SAMPLES = 400
SHORT: dict[str, Json] = {"steps": 2, "lr": 1e-3}


def corpus_of(folder: Path, emotions: Sequence[str], num_samples: int = 2000) -> Artifact:
    """Utterances of the two training speakers in turn, and two of the test speaker's."""
    (folder / "audio").mkdir(parents=True)
    rng = np.random.default_rng(0)
    speakers = [("ann", "f"), ("bob", "m")]
    rows = [(*speakers[i % 2], emotion) for i, emotion in enumerate(emotions)]
    rows += [("eve", "f", "sad"), ("eve", "f", "glad")]
    with open(folder / "audio" / "manifest.csv", "w", newline="") as f:
        table = csv.writer(f)
        table.writerow(["id", "path", "speaker", "gender", "emotion"])
        for i, (speaker, gender, emotion) in enumerate(rows):
            with wave.open(str(folder / "audio" / f"{i}.wav"), "wb") as audio:
                audio.setnchannels(1)
                audio.setsampwidth(2)
                audio.setframerate(16_000)
                audio.writeframes(rng.integers(-9000, 9000, num_samples, "<i2").tobytes())
            table.writerow([f"u{i}", f"{i}.wav", speaker, gender, emotion])
    with no_ray():
        return ingest(context_of(folder / "root", folder / "audio"), adapter="table", min_s=0.025)


def warmup(tiny: Tiny, corpus: Artifact, **keys: Json) -> WarmupRecipe:
    config = WarmupConfig.model_validate({**SHORT, **keys})
    training = FOLD.training_speakers()
    return WarmupRecipe(config, corpus, tiny.backbone, training)


def finetune(tiny: Tiny, corpus: Artifact) -> FinetuneRecipe:
    config = FinetuneConfig.model_validate({**SHORT, "embedding_dim": 16})
    training = FOLD.training_speakers()
    return FinetuneRecipe(config, corpus, tiny.backbone, training, ())


def retrain(tiny: Tiny, corpus: Artifact, **keys: Json) -> RetrainRecipe:
    """Of utterances of one frame each."""
    books = (Codebook(0, 2, "all", 0, np.arange(3, dtype=np.float32)[:, None]),)
    training = FOLD.training_speakers()
    labels = ArtifactWriter(corpus.store, ArtifactKey("label", "1" * 64))
    names = (books[0].fingerprint,)
    rows = [
        UtteranceLabels(u.utterance_id, names, (np.array([i % 3], dtype="<i2"),))
        for i, u in enumerate(Utterances(corpus, training.speakers))
    ]
    put_labels(labels, "part", rows)
    artifact = labels.seal(version=1, science={}, inputs={})
    config = RetrainConfig.model_validate({**SHORT, "projection_dim": 16, **keys})
    return RetrainRecipe(config, TrainingSet(corpus, training), tiny.backbone, artifact, books)


def trained(recipe: Recipe, folder: Path) -> Artifact:
    store = Store.open(str(folder / "trained"))
    job = TrainJob(recipe, store, ArtifactKey(recipe.name, "f" * 64), TrainWorkersConfig())
    train_here(job, OneRank())
    return ArtifactWriter(store, job.key).seal(version=1, science={}, inputs={})


def check_learnt(recipe: Recipe, artifact: Artifact) -> None:
    curves = read_curves(artifact)
    assert [step for step, _ in curves["loss"]] == [1, 2]
    assert all(math.isfinite(value) for points in curves.values() for _, value in points)
    assert all(norm > 0 for _, norm in curves["gradient_norm"])
    after = artifact.read_file("model.safetensors")
    assert after != recipe.export(recipe.build())["model.safetensors"]


@pytest.mark.parametrize("stage", [warmup, finetune, retrain])
def test_utterances_of_one_frame_train(
    tiny: Tiny, tmp_path: Path, stage: Callable[[Tiny, Artifact], Recipe]
) -> None:
    corpus = corpus_of(tmp_path, ["sad", "glad", "glad"], ONE_FRAME_SAMPLES)
    recipe = stage(tiny, corpus)
    assert {u.num_samples for u in recipe.utterances} == {ONE_FRAME_SAMPLES}
    check_learnt(recipe, trained(recipe, tmp_path))


@pytest.mark.parametrize("stage", [warmup, finetune])
def test_a_training_set_of_one_class_is_refused(
    tiny: Tiny, tmp_path: Path, stage: Callable[[Tiny, Artifact], Recipe]
) -> None:
    corpus = corpus_of(tmp_path, ["sad", "sad"])
    with pytest.raises(
        CorpusError,
        match=rf"^{stage.__name__}: all 2 training utterances of fold 'split' are 'sad'"
        r".* at least two emotions; .* folds\.held_out",
    ):
        stage(tiny, corpus)


def test_warming_up_on_gender_alone_needs_one_emotion_only(tiny: Tiny, tmp_path: Path) -> None:
    recipe = warmup(tiny, corpus_of(tmp_path, ["sad", "sad"]), gender_weight=1.0)
    check_learnt(recipe, trained(recipe, tmp_path))


@pytest.mark.parametrize("stage", [warmup, finetune])
def test_a_class_that_no_training_speaker_has_is_said_and_nothing_else(
    tiny: Tiny,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    stage: Callable[[Tiny, Artifact], Recipe],
) -> None:
    caplog.set_level(logging.WARNING)
    corpus = corpus_of(tmp_path, ["sad", "angry", "angry"])
    recipe = stage(tiny, corpus)
    (said,) = [r.getMessage() for r in caplog.records if "no training utterance" in r.getMessage()]
    assert "fold 'split' is 'glad'" in said
    check_learnt(recipe, trained(recipe, tmp_path))


def test_a_penalty_on_frozen_features_has_no_gradient_and_does_no_harm(
    tiny: Tiny, tmp_path: Path
) -> None:
    corpus = corpus_of(tmp_path, ["sad", "glad"], ONE_FRAME_SAMPLES)
    recipe = retrain(tiny, corpus, freeze_conv=True)
    check_learnt(recipe, trained(recipe, tmp_path))


class Frozen(WarmupRecipe):
    """Nothing of its model is to be trained."""

    def build(self) -> nn.Module:
        return super().build().requires_grad_(False)


def test_a_model_that_is_frozen_as_a_whole_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, ["sad", "glad"])
    training = FOLD.training_speakers()
    config = WarmupConfig.model_validate(SHORT)
    recipe = Frozen(config, corpus, tiny.backbone, training)
    with pytest.raises(ModelError, match=r"parameters of the WarmupModel are frozen.*; leave"):
        trained(recipe, tmp_path)
