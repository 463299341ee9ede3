"""The poolings and losses of fine-tuning against float64 references that are written here."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.small_models import EMOTIONS

from gmp_atl_dist.config import FinetuneConfig
from gmp_atl_dist.models.emotion import EmotionConfig, EmotionModel
from gmp_atl_dist.models.heads import (
    ClassificationLoss,
    FocalLoss,
    LossTerms,
    StatisticsPooling,
)
from gmp_atl_dist.models.hubert import build_random, pad_waves
from gmp_atl_dist.models.layer_mean import LayerMean
from gmp_atl_dist.models.margin_losses import AamSoftmax, AmSoftmax
from gmp_atl_dist.recipes.finetune import margin_at

torch.set_num_threads(1)
SCALE, MARGIN, GAMMA = 30.0, 0.4, 1.7


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def aam_logits(x: np.ndarray, w: np.ndarray, target: int) -> np.ndarray:
    cosine = unit(w) @ unit(x)
    angle = math.acos(np.clip(cosine[target], -1.0, 1.0))  # of itself, rounding may exceed 1
    if angle <= math.pi - MARGIN:
        cosine[target] = math.cos(angle + MARGIN)
    else:
        cosine[target] -= MARGIN * math.sin(MARGIN)
    return SCALE * cosine


def cross_entropy(logits: np.ndarray, target: int) -> float:
    top = logits.max()
    return float(np.log(np.exp(logits - top).sum()) + top - logits[target])


def losses(head: ClassificationLoss, x_BE: torch.Tensor, target_B: torch.Tensor) -> LossTerms:
    terms = head(x_BE, target_B)
    assert isinstance(terms, LossTerms)
    return terms


def test_aam_softmax_is_arcface_equation_3_also_where_the_angle_is_near_pi() -> None:
    torch.manual_seed(0)
    head = AamSoftmax(4, 3, SCALE, MARGIN)
    w = head.weight.detach().double().numpy()
    x_BE = torch.randn(6, 4)
    target_B = torch.tensor([0, 1, 2, 0, 1, 2])
    x_BE[4] = -head.weight.detach()[1]  # the opposite of its class
    x_BE[5] = head.weight.detach()[2]  # its class itself
    terms = losses(head, x_BE, target_B)
    expected = [
        cross_entropy(aam_logits(x.double().numpy(), w, t), t)
        for x, t in zip(x_BE, target_B.tolist(), strict=True)
    ]
    np.testing.assert_allclose(terms.loss_B.detach().numpy(), expected, rtol=2e-4, atol=2e-3)
    assert terms.without_margin_BK is not None
    plain = SCALE * unit(x_BE.double().numpy()) @ unit(w).T
    np.testing.assert_allclose(terms.without_margin_BK.numpy(), plain, atol=1e-3)
    torch.testing.assert_close(head(x_BE), terms.without_margin_BK)


def test_the_angular_margin_only_ever_lowers_a_logit_and_has_finite_gradients() -> None:
    head = AamSoftmax(2, 2, SCALE, MARGIN)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    angle_B = torch.linspace(0, math.pi, 301)
    x_BE = torch.stack([angle_B.cos(), angle_B.sin()], -1).requires_grad_()
    lowered_B = head.loss_logits(x_BE, torch.zeros(301, dtype=torch.int64))[:, 0]
    assert (lowered_B < head.logits(x_BE)[:, 0]).all()
    assert (lowered_B.diff() < 0.02).all(), "it falls with the angle, beyond pi - m too"
    lowered_B.sum().backward()
    assert x_BE.grad is not None
    assert torch.isfinite(x_BE.grad).all()


def test_without_a_margin_both_margin_losses_are_the_same() -> None:
    am, aam = AmSoftmax(4, 3, SCALE, 0.0), AamSoftmax(4, 3, SCALE, 0.0)
    aam.load_state_dict(am.state_dict())
    x_BE, target_B = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    first, second = losses(am, x_BE, target_B), losses(aam, x_BE, target_B)
    torch.testing.assert_close(first.loss_B, second.loss_B, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("gamma", [0.0, 0.5, GAMMA])
def test_focal_loss_is_equation_4_and_differentiable_where_a_prediction_is_sure(gamma) -> None:
    head = FocalLoss(4, 3, gamma)
    x_BE = torch.randn(5, 4)
    x_BE[4] = 200 * head.weight.detach()[1] / head.weight.detach()[1].norm() ** 2
    x_BE.requires_grad_()
    target_B = torch.tensor([0, 1, 2, 0, 1])
    logits = head(x_BE).detach().double().numpy()
    expected = []
    for row, target in zip(logits, target_B.tolist(), strict=True):
        ce = cross_entropy(row, target)
        expected.append((1 - math.exp(-ce)) ** gamma * ce)
    terms = losses(head, x_BE, target_B)
    np.testing.assert_allclose(terms.loss_B.detach().numpy(), expected, rtol=1e-4, atol=1e-6)
    terms.loss_B.sum().backward()
    assert x_BE.grad is not None
    assert torch.isfinite(x_BE.grad).all()


def test_statistics_pooling_is_mean_and_deviation_of_the_valid_frames() -> None:
    pooling = StatisticsPooling(6)
    assert pooling.output_dim == 12
    x_BTD = torch.randn(3, 5, 6) + 40
    valid_BT = torch.arange(5) < torch.tensor([5, 2, 1])[:, None]
    padded = x_BTD.masked_fill(~valid_BT[..., None], float("inf")).requires_grad_()
    pooled = pooling(padded, valid_BT)
    for row, x_TD, n in zip(pooled.detach(), x_BTD, (5, 2, 1), strict=True):
        frames = x_TD[:n].double().numpy()
        expected = np.concatenate([frames.mean(0), frames.std(0)])
        np.testing.assert_allclose(row.numpy(), expected, atol=2e-5)
    pooled.sum().backward()
    assert padded.grad is not None
    assert torch.isfinite(padded.grad).all(), "a clip of one frame has a deviation of 0"


def test_layer_mean_is_a_softmax_mean() -> None:
    mean = LayerMean(3)
    frames = [torch.randn(2, 4, 5) for _ in range(3)]
    torch.testing.assert_close(mean(frames), torch.stack(frames).mean(0))
    with torch.no_grad():
        mean.logits_L.copy_(torch.tensor([0.3, -1.0, 2.0]))
    weights = np.exp([0.3, -1.0, 2.0]) / np.exp([0.3, -1.0, 2.0]).sum()
    expected = sum(w * x.double().numpy() for w, x in zip(weights, frames, strict=True))
    np.testing.assert_allclose(mean(frames).detach().numpy(), expected, atol=1e-6)


def test_a_linear_head_is_linear_in_the_mean_frame() -> None:
    """SUPERB's check: a learnt mean of layers, their mean over time, one linear layer."""
    model = EmotionModel.from_backbone(
        build_random("tiny", 0),
        EMOTIONS,
        embedding_dim=0,
        pooling="mean",
        loss="cross_entropy",
        pool_layers="average",
    ).eval()
    wave_BN, num_samples_B = pad_waves([np.sin(np.arange(5000)).astype(np.float32)])
    with torch.no_grad():
        frames = model.backbone.forward_frames(wave_BN, num_samples_B, want=[0, 1, 2, 3])
        mean_D = sum(x[0].mean(0) for x in frames.hidden.values()) / 4
        state = model.state_dict()
        expected = state["classifier.weight"] @ mean_D + state["classifier.bias"]
        torch.testing.assert_close(model(wave_BN, num_samples_B)[0], expected, atol=1e-5, rtol=1e-5)
    assert not [name for name in state if name.startswith("embedding")]


def test_a_stored_head_of_earlier_releases_has_no_new_key() -> None:
    config = EmotionModel.from_backbone(build_random("tiny", 0), EMOTIONS).config
    assert isinstance(config, EmotionConfig)
    assert "pool_layers" not in config.to_dict()
    assert config.pooled_layers == "last"


def test_a_margin_that_grows_reaches_its_value_and_stays() -> None:
    config = FinetuneConfig(am_margin=0.2, margin_warmup_fraction=0.5)
    margins = [margin_at(config, step, 10) for step in range(10)]
    assert margins == pytest.approx([0, 0.04, 0.08, 0.12, 0.16, 0.2, 0.2, 0.2, 0.2, 0.2])
    assert margin_at(FinetuneConfig(), 0, 10) == 0.2, "off"
