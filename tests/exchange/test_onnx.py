"""Classifiers in ONNX: the logits of torch at any length and padding, and what the file says of itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from support.small_models import EMOTIONS, write_classifier
from transformers import HubertConfig

from gmp_atl_dist.errors import ConfigError, ModelError
from gmp_atl_dist.exchange import onnx_files
from gmp_atl_dist.exchange.models import check_onnx
from gmp_atl_dist.exchange.onnx_files import OPSET, TOLERANCE, onnx_bytes
from gmp_atl_dist.exchange.onnx_model import OnnxClassifier
from gmp_atl_dist.models.emotion import EmotionModel
from gmp_atl_dist.models.hubert import Hubert
from gmp_atl_dist.models.padding import pad_waves
from gmp_atl_dist.models.sizes import NAMED_SIZES
from gmp_atl_dist.models.stored import load_emotion_model

LENGTHS = (400, 401, 719, 720, 5_000, 16_000, 77_777)


def base_kind(folder: Path) -> EmotionModel:
    """As hubert-base: group norm, waveforms as they are, attentive pooling, AM-Softmax."""
    return load_emotion_model(str(write_classifier(folder / "base")))


def large_kind(_: Path) -> EmotionModel:
    """As hubert-large: layer norms, normalised waveforms; the other pooling and loss."""
    values = {**NAMED_SIZES["tiny"], "feat_extract_norm": "layer", "conv_bias": True}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        hubert = Hubert(HubertConfig.from_dict({**values, "do_stable_layer_norm": True}))
        return EmotionModel.from_backbone(
            hubert, EMOTIONS, embedding_dim=8, pooling="mean", loss="cross_entropy"
        ).eval()


@pytest.mark.slow
@pytest.mark.parametrize("make", [pytest.param(base_kind, marks=pytest.mark.nightly), large_kind])
def test_onnxruntime_computes_what_torch_computes(make, tmp_path: Path) -> None:
    model: EmotionModel = make(tmp_path)
    data = onnx_bytes(model, {"title": "a title"})
    session = onnxruntime.InferenceSession(data)
    random = np.random.default_rng(1)
    waves = [(0.2 * random.standard_normal(n)).astype(np.float32) for n in LENGTHS]
    with torch.inference_mode():
        expected = np.concatenate([model(*pad_waves([w])).numpy() for w in waves])
    assert np.ptp(expected, axis=0).max() > 0.01, "they differ between waves"

    for wave, row in zip(waves, expected, strict=True):
        logits, probabilities = session.run(
            None, {"wave": wave[None], "num_samples": np.array([len(wave)])}
        )
        np.testing.assert_allclose(np.asarray(logits)[0], row, rtol=0, atol=TOLERANCE)
        softmax = torch.from_numpy(row).softmax(-1).numpy()
        np.testing.assert_allclose(np.asarray(probabilities)[0], softmax, rtol=0, atol=TOLERANCE)

    padded = np.full((len(waves), max(LENGTHS) + 1000), 7.0, np.float32)
    for row, wave in zip(padded, waves, strict=True):
        row[: len(wave)] = wave
    logits, _ = session.run(None, {"wave": padded, "num_samples": np.array(LENGTHS)})
    np.testing.assert_allclose(np.asarray(logits), expected, rtol=0, atol=TOLERANCE)

    read = onnx.load_from_string(data)
    onnx.checker.check_model(read)
    assert {one.domain: one.version for one in read.opset_import}[""] == OPSET
    said = {one.key: one.value for one in read.metadata_props}
    assert json.loads(said["emotions"]) == list(EMOTIONS)
    assert (said["sample_rate_hz"], said["title"]) == ("16000", "a title")
    for machine in (b"site-packages", b"gmp_atl_dist/", b".py", str(Path.home()).encode()):
        assert machine not in data, "it names no file of the machine that exported it"


@pytest.mark.slow
def test_a_file_that_computes_something_else_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = OnnxClassifier.forward

    def other(self: OnnxClassifier, wave_BN: torch.Tensor, num_samples_B: torch.Tensor):
        logits_BK, probabilities_BK = forward(self, wave_BN, num_samples_B)
        return logits_BK + 0.01, probabilities_BK

    monkeypatch.setattr(OnnxClassifier, "forward", other)
    with pytest.raises(ModelError, match=r"onnxruntime .* and torch .* differ by .* nothing was"):
        onnx_bytes(base_kind(tmp_path), {})


def test_what_is_missing_is_named_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="only the classifier"):
        check_onnx("backbone")
    monkeypatch.setattr(onnx_files, "_NEEDED", ("onnx", "a_package_that_is_not_here"))
    with pytest.raises(ConfigError, match=r"needs a_package_that_is_not_here; install them"):
        check_onnx("classifier")
