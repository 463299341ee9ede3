"""Pooling, AM-Softmax, the multi-task models, and the emotion model's life on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForAudioClassification

from gmp_atl_dist.audio import num_frames
from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.models.emotion import EmotionConfig, EmotionModel
from gmp_atl_dist.models.heads import (
    AttentivePooling,
    FrameHead,
    LinearFrameHead,
    MeanPooling,
)
from gmp_atl_dist.models.hubert import build_random, pad_waves
from gmp_atl_dist.models.margin_losses import AmSoftmax
from gmp_atl_dist.models.multitask import RetrainModel, WarmupModel
from gmp_atl_dist.models.source import model_to_files

torch.set_num_threads(1)

EMOTIONS = ["angry", "happy", "neutral", "sad"]


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    return pad_waves([rng.standard_normal(n).astype(np.float32) for n in (4000, 400, 2345)])


@pytest.mark.parametrize("pooling", [MeanPooling(6), AttentivePooling(6)])
def test_pooling_sees_valid_frames_only(pooling: torch.nn.Module) -> None:
    x_BTD = torch.randn(2, 5, 6)
    valid_BT = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    pooled = pooling(x_BTD, valid_BT)
    alone = pooling(x_BTD[1:, :2], valid_BT[1:, :2])
    torch.testing.assert_close(pooled[1:], alone)
    x_BTD[1, 2:] = float("inf")
    torch.testing.assert_close(pooling(x_BTD, valid_BT)[1:], alone)


def test_mean_pooling_is_the_mean() -> None:
    x_BTD = torch.randn(2, 5, 6)
    pooled = MeanPooling(6)(x_BTD, torch.ones(2, 5, dtype=torch.bool))
    torch.testing.assert_close(pooled, x_BTD.mean(1))


def test_attentive_pooling_prefers_the_scored_frame() -> None:
    pooling = AttentivePooling(2)
    with torch.no_grad():
        pooling.hidden.weight.copy_(torch.eye(2))
        pooling.hidden.bias.zero_()
        pooling.score.weight.copy_(torch.tensor([[100.0, 0.0]]))
    x_BTD = torch.tensor([[[0.0, 1.0], [1.0, 2.0], [0.0, 3.0]]])
    pooled = pooling(x_BTD, torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(pooled, torch.tensor([[1.0, 2.0]]))


def test_am_softmax_is_safe_at_zero_norm_and_exact_under_autocast() -> None:
    head = AmSoftmax(5, 3, 30.0, 0.2)
    x_BD = torch.zeros(2, 5, requires_grad=True)
    head.loss_logits(x_BD, torch.tensor([0, 1])).sum().backward()
    assert x_BD.grad is not None
    # A vector below the smallest length, 1e-4, is divided by that: no update by 1e12.
    assert 0 < x_BD.grad.abs().max() < 2 * 30.0 / 1e-4
    x_BD = torch.randn(2, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = head(x_BD)
    assert torch.equal(low, head(x_BD))


def test_frame_head_is_huberts_equation_3() -> None:
    head = FrameHead(6, 4, 5, temperature=0.1)
    x_BTD = torch.randn(2, 3, 6)
    projected = head.projection(x_BTD)
    for c in range(5):
        expected = torch.cosine_similarity(projected, head.label_embeddings[c], dim=-1) / 0.1
        torch.testing.assert_close(head(x_BTD)[..., c], expected, rtol=1e-4, atol=1e-4)
    assert LinearFrameHead(6, 5)(x_BTD).shape == (2, 3, 5)


def test_all_trained_parameters_get_gradients_in_every_model() -> None:
    """Parameters that the optimiser holds but no loss reaches stall distributed training."""
    wave_BN, num_samples_B = batch()
    frames = sum(num_frames(n) for n in num_samples_B.tolist())
    mask_M, labels_SM = torch.zeros(frames, dtype=torch.bool), torch.zeros(2, frames).long()

    def check(model: torch.nn.Module, loss: torch.Tensor) -> None:
        loss.backward()
        stray = [n for n, p in model.named_parameters() if (p.grad is None) == p.requires_grad]
        assert not stray

    for pool_layers in ("last", "average"):
        model = WarmupModel(build_random("tiny", 0), 4, pool_layers).train()
        output = model(wave_BN, num_samples_B)
        assert (output.emotion_BK.shape, output.gender_BG.shape) == ((3, 4), (3, 2))
        check(model, output.emotion_BK.sum() + output.gender_BG.sum())
    for masked in (True, False):
        model = RetrainModel(build_random("tiny", 0), [5, 7], masked=masked).train()
        output = model(wave_BN, num_samples_B, labels_SM, mask_M=mask_M if masked else None)
        assert [terms.loss_M.shape for terms in output.terms] == [mask_M.shape] * 2
        check(model, sum((terms.loss_M.sum() for terms in output.terms), torch.zeros(())))
    model = EmotionModel.from_backbone(build_random("tiny", 0), EMOTIONS).train()
    for pooling in ("attentive", "mean"):
        for loss in ("am_softmax", "cross_entropy"):
            model = EmotionModel.from_backbone(
                build_random("tiny", 0), EMOTIONS, pooling=pooling, loss=loss
            ).train()
            check(model, model(wave_BN, num_samples_B, torch.tensor([0, 1, 2])).loss_B.sum())


@pytest.mark.parametrize("pool_layers", ["last", "average"])
def test_warmup_reads_the_layers_it_says(pool_layers: Literal["last", "average"]) -> None:
    model = WarmupModel(build_random("tiny", 0), 4, pool_layers).eval()
    wave_BN, num_samples_B = batch()
    with torch.no_grad():
        frames = model.backbone.forward_frames(wave_BN, num_samples_B, want=range(4))
        layers = [3] if pool_layers == "last" else [0, 1, 2, 3]
        x_BTD = torch.stack([frames.hidden[i] for i in layers]).mean(0)
        expected = model.emotion(model.pooling(x_BTD, frames.valid_BT))
        torch.testing.assert_close(model(wave_BN, num_samples_B).emotion_BK, expected)


def test_retrain_wants_a_mask_exactly_where_it_is_masked() -> None:
    wave_BN, num_samples_B = batch()
    with pytest.raises(ValueError, match="masked = True"):
        RetrainModel(build_random("tiny", 0), [5], masked=True)(
            wave_BN, num_samples_B, torch.zeros(1, 1).long()
        )


def emotion_model() -> EmotionModel:
    hubert = build_random("tiny", 0, normalize=True)
    return EmotionModel.from_backbone(hubert, EMOTIONS, embedding_dim=16, am_margin=0.3)


def test_emotion_model_comes_back_bit_for_bit(tmp_path: Path) -> None:
    model = emotion_model()
    model.backbone.set_dropout(0.25)
    assert not model.training
    for name, content in model_to_files(model).items():
        (tmp_path / name).write_bytes(content)
    wave_BN, num_samples_B = batch()
    for again in (
        EmotionModel.from_pretrained(tmp_path),
        AutoModelForAudioClassification.from_pretrained(tmp_path),
    ):
        assert isinstance(again, EmotionModel)
        assert model_to_files(again) == model_to_files(model)
        with torch.no_grad():
            assert torch.equal(again(wave_BN, num_samples_B), model(wave_BN, num_samples_B))
    config = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(config, EmotionConfig)
    assert config.id2label == dict(enumerate(EMOTIONS))
    assert config.label2id == {e: i for i, e in enumerate(EMOTIONS)}
    assert (config.am_scale, config.am_margin, config.embedding_dim) == (30.0, 0.3, 16)
    assert config.normalize_waveform is True
    assert config.hidden_dropout == 0.25


def test_emotion_logits_do_not_depend_on_the_batch() -> None:
    model = emotion_model()
    wave_BN, num_samples_B = batch()
    with torch.no_grad():
        together = model(wave_BN, num_samples_B)
        for b, n in enumerate(num_samples_B.tolist()):
            alone = model(wave_BN[b : b + 1, :n], num_samples_B[b : b + 1])
            assert (together[b] - alone[0]).abs().max() < 1e-4


def test_the_margin_is_for_training_only() -> None:
    model = emotion_model()
    wave_BN, num_samples_B = batch()
    target_B = torch.tensor([0, 1, 2])
    with torch.no_grad():
        terms = model(wave_BN, num_samples_B, target_B)
        difference = model(wave_BN, num_samples_B) - terms.logits_BK
    expected = 30.0 * 0.3 * torch.nn.functional.one_hot(target_B, 4)
    torch.testing.assert_close(difference, expected, atol=1e-4, rtol=0)


def test_what_was_frozen_stays_frozen_under_the_head() -> None:
    hubert = build_random("tiny", 0)
    hubert.freeze_front_end()
    model = EmotionModel.from_backbone(hubert, EMOTIONS)
    assert model.backbone is hubert
    assert not any(p.requires_grad for p in hubert.feature_extractor.parameters())


@pytest.mark.parametrize("emotions", [[], ["sad"], ["sad", "sad"]])
def test_class_lists_that_are_none_are_refused(emotions: list[str]) -> None:
    with pytest.raises(ModelError, match="are no class list"):
        EmotionModel.from_backbone(build_random("tiny", 0), emotions)
