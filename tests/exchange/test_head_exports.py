"""Exported classifiers of every head: the numbers of this package, in transformers alone and in ONNX."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from support.small_models import EMOTIONS
from transformers import HubertConfig

from gmp_atl_dist.exchange import modeling_gmp_atl
from gmp_atl_dist.exchange.models import _classifier_config
from gmp_atl_dist.exchange.onnx_files import TOLERANCE, onnx_bytes
from gmp_atl_dist.inference.classifier import Classifier
from gmp_atl_dist.models.emotion import EmotionModel
from gmp_atl_dist.models.heads import LossTerms
from gmp_atl_dist.models.hubert import Hubert, pad_waves
from gmp_atl_dist.models.sizes import NAMED_SIZES
from gmp_atl_dist.models.source import model_to_files
from gmp_atl_dist.models.stored import emotion_model_from_files

torch.set_num_threads(1)
HEADS = {
    "aam": {"loss": "aam_softmax"},
    "focal": {"loss": "focal", "loss_options": {"gamma": 1.5}, "pooling": "statistics"},
    "linear": {
        "loss": "cross_entropy",
        "pooling": "mean",
        "embedding_dim": 0,
        "pool_layers": "average",
    },
    "no embedding": {"pooling": "statistics", "embedding_dim": 0},
}
NORMS = {
    "group": {},
    "layer": {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True},
}


def model_of(head: str, norm: str) -> EmotionModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        hubert = Hubert(HubertConfig.from_dict({**NAMED_SIZES["tiny"], **NORMS[norm]}))
        values = {"embedding_dim": 8, **HEADS[head]}
        model = EmotionModel.from_backbone(hubert, EMOTIONS, **values).eval()
        if "pool_layers" in HEADS[head]:
            torch.nn.init.normal_(model.layer_mean.logits_L)
    return model


def waves() -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [(0.2 * random.standard_normal(n)).astype(np.float32) for n in (401, 5_000, 16_000)]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("norm", NORMS)
def test_the_exported_code_and_predict_compute_what_was_trained(head: str, norm: str) -> None:
    files = model_to_files(model_of(head, norm))
    ours = emotion_model_from_files(files, "a model")
    values = _classifier_config(json.loads(files["config.json"]))
    config = modeling_gmp_atl.GmpAtlConfig.from_dict(values)
    theirs = modeling_gmp_atl.GmpAtlForAudioClassification(config).eval()
    missing, unexpected = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert (missing, unexpected) == ([], [])
    wave_BN, num_samples_B = pad_waves(waves())
    target_B = torch.tensor([0, 1, 2])
    mask_BN = (torch.arange(wave_BN.shape[1]) < num_samples_B[:, None]).long()
    with torch.inference_mode():
        expected = ours(wave_BN, num_samples_B)
        terms = ours(wave_BN, num_samples_B, target_B)
        if norm == "group":
            said = theirs(wave_BN, mask_BN, labels=target_B)
            torch.testing.assert_close(said.logits, expected, atol=2e-4, rtol=1e-4)
            assert isinstance(terms, LossTerms)
            torch.testing.assert_close(said.loss, terms.loss_B.mean(), atol=2e-3, rtol=1e-3)
    predicted = Classifier(ours)(waves())
    np.testing.assert_allclose(predicted, expected.softmax(-1).numpy(), atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "head",
    [
        "aam",
        *(pytest.param(h, marks=pytest.mark.nightly) for h in HEADS if h != "aam"),
    ],
)
def test_onnx_computes_the_same(head: str, tmp_path: Path) -> None:
    model = model_of(head, "layer")
    session = onnxruntime.InferenceSession(onnx_bytes(model, {"title": "a title"}))
    for wave in waves():
        with torch.inference_mode():
            expected = model(*pad_waves([wave])).numpy()
        logits, _ = session.run(None, {"wave": wave[None], "num_samples": np.array([len(wave)])})
        np.testing.assert_allclose(np.asarray(logits), expected, rtol=0, atol=TOLERANCE)
