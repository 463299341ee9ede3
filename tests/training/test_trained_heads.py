"""Every head and loss: trained with divided weights, stopped and continued, then asked and served."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from fastapi.testclient import TestClient
from safetensors.torch import load as load_tensors
from support.model_service import OneProcess
from support.one_process import FOLD, OneRank, Stopped, Tiny, train_here

from gmp_atl_dist.config import FinetuneConfig, Json, TrainWorkersConfig
from gmp_atl_dist.models.hubert import pad_waves
from gmp_atl_dist.models.stored import emotion_model_from_files
from gmp_atl_dist.predict import Predictor
from gmp_atl_dist.recipes.finetune import FinetuneRecipe
from gmp_atl_dist.serving.app import build_app
from gmp_atl_dist.serving.limits import Limits
from gmp_atl_dist.serving.runner import ModelRunner
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.readers import read_curves
from gmp_atl_dist.store.writer import ArtifactWriter
from gmp_atl_dist.training.loop import TrainJob

pytest_plugins = ["support.one_process"]

SHORT: dict[str, Json] = {
    **{"steps": 3, "batch_s": 3.0, "micro_batches": 1, "lr": 1e-3, "dropout": 0.0},
    "embedding_dim": 8,
}
HEADS: dict[str, dict[str, Json]] = {
    "linear": {"loss": "cross_entropy", "pooling": "mean", "embedding_dim": 0},
    "aam": {"loss": "aam_softmax", "margin_warmup_fraction": 0.5},
    "focal": {"loss": "focal", "loss_options": {"gamma": 1.5}},
    "statistics": {"pooling": "statistics"},
}


def job(tiny: Tiny, folder: Path, keys: dict[str, Json], **workers: Json) -> TrainJob:
    config = FinetuneConfig.model_validate({**SHORT, **keys})
    recipe = FinetuneRecipe(config, tiny.corpus, tiny.backbone, FOLD.training_speakers(), ())
    settings = TrainWorkersConfig.model_validate({"checkpoint_every_steps": 1, **workers})
    key = ArtifactKey("finetune", "f" * 64)
    return TrainJob(recipe, Store.open(str(folder)), key, settings)


def sealed(done: TrainJob) -> Artifact:
    return ArtifactWriter(done.store, done.key).seal(version=1, science={}, inputs={})


def trained(tiny: Tiny, folder: Path, keys: dict[str, Json], **workers: Json) -> Artifact:
    made = job(tiny, folder, keys, **workers)
    train_here(made, OneRank())
    return sealed(made)


@pytest.mark.parametrize("head", HEADS)
def test_what_zero_3_trains_is_that_of_zero_1_and_is_served(
    tiny: Tiny, tmp_path: Path, head: str
) -> None:
    one = trained(tiny, tmp_path / "1", HEADS[head])
    three = trained(tiny, tmp_path / "3", HEADS[head], zero_stage=3)
    expected = read_curves(one)
    for name, points in read_curves(three).items():
        assert points == [(step, pytest.approx(v, rel=1e-4)) for step, v in expected[name]], name
    weights = load_tensors(one.read_file("model.safetensors"))
    for name, weight in load_tensors(three.read_file("model.safetensors")).items():
        # AdamW makes a step of the learning rate out of a gradient that is only rounding.
        torch.testing.assert_close(weight, weights[name], rtol=1e-4, atol=1e-3)

    folder = tmp_path / "model"
    folder.mkdir()
    files = {n: three.read_file(n) for n in ("config.json", "model.safetensors")}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    wave = (0.2 * np.random.default_rng(0).standard_normal(12_000)).astype(np.float32)
    sf.write(tmp_path / "a.wav", wave, 16_000, subtype="FLOAT")
    model = emotion_model_from_files(files, "a model")
    with torch.inference_mode():
        logits_BK = model(*pad_waves([wave]))
    expected_K = logits_BK.softmax(-1)[0].tolist()
    (predicted,) = Predictor(folder).predict([tmp_path / "a.wav"])
    assert list(predicted.values()) == pytest.approx(expected_K, abs=2e-4)
    service = OneProcess(ModelRunner(str(folder), "tiny", "cpu", threads=1))
    app = build_app(service, Limits(max_mib=0.5, max_s=40, queue=3), None)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        answer = client.post("/v1/predict", content=(tmp_path / "a.wav").read_bytes())
    assert answer.status_code == 200, answer.text
    assert answer.json()["probabilities"] == pytest.approx(predicted, abs=1e-6)


@pytest.mark.parametrize("loss", ["am_softmax", "aam_softmax"])
def test_a_growing_margin_resumes_to_the_same_bytes(tiny: Tiny, tmp_path: Path, loss: str) -> None:
    """Stopped while the margin still grows."""
    keys: dict[str, Json] = {"loss": loss, "steps": 6, "margin_warmup_fraction": 0.8}
    whole = trained(tiny, tmp_path / "whole", keys)
    torn = job(tiny, tmp_path / "torn", keys)
    with pytest.raises(Stopped):
        train_here(torn, OneRank(stop_after=2))
    train_here(torn, OneRank())
    resumed = sealed(torn)
    (step,) = json.loads(resumed.read_file("training.json"))["resumed_at"]
    assert 0 < step < 0.8 * 6
    weights = whole.read_file("model.safetensors")
    assert resumed.read_file("model.safetensors") == weights
    assert read_curves(resumed) == read_curves(whole)
    fixed = trained(tiny, tmp_path / "fixed", {**keys, "margin_warmup_fraction": 0.0})
    assert fixed.read_file("model.safetensors") != weights, "the margin is seen in the weights"
