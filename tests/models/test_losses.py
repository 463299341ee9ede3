"""Loss sums against torch's own losses, whatever the split over ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

from gmp_atl_dist.models import frame_losses
from gmp_atl_dist.models.frame_losses import FrameTerms
from gmp_atl_dist.models.losses import (
    balanced_class_weights,
    check_labels,
    feature_penalty_sum,
    frame_prediction_sums,
    weighted_cross_entropy_sum,
)


def test_weighted_cross_entropy_is_torchs() -> None:
    logits_BK, target_B = torch.randn(7, 4), torch.tensor([0, 1, 2, 3, 3, 0, 1])
    weight_K = torch.tensor([0.5, 2.0, 1.0, 0.7])
    for weight in (None, weight_K):
        loss, count = weighted_cross_entropy_sum(logits_BK, target_B, weight)
        torch.testing.assert_close(loss / count, F.cross_entropy(logits_BK, target_B, weight))


def test_sums_of_parts_are_the_sum_and_filler_rows_count_nothing() -> None:
    logits_BK, target_B = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    weight_K = torch.tensor([0.5, 2.0, 1.0])
    whole = weighted_cross_entropy_sum(logits_BK[:5], target_B[:5], weight_K)
    row_weight_B = torch.tensor([1.0, 1.0, 0.0])
    parts = [
        weighted_cross_entropy_sum(logits_BK[:3], target_B[:3], weight_K),
        weighted_cross_entropy_sum(logits_BK[3:], target_B[3:], weight_K, row_weight_B),
    ]
    for i in range(2):
        torch.testing.assert_close(parts[0][i] + parts[1][i], whole[i])


def frames() -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Logits (M, K) of two scales, their labels, and which frames are masked."""
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(16, k, generator=generator, requires_grad=True) for k in (5, 11)]
    labels_SM = torch.stack([torch.randint(k, (16,), generator=generator) for k in (5, 11)])
    return logits, labels_SM, torch.rand(16, generator=generator) < 0.6


def terms_of(logits: list[torch.Tensor], labels_SM: torch.Tensor) -> list[FrameTerms]:
    """By torch, from whole logits."""
    return [
        FrameTerms(F.cross_entropy(x, labels_M, reduction="none"), x.argmax(-1) == labels_M)
        for x, labels_M in zip(logits, labels_SM, strict=True)
    ]


def test_masked_prediction_is_torchs_over_masked_frames() -> None:
    logits, labels, mask_M = frames()
    sums = frame_prediction_sums(terms_of(logits, labels), mask_M)
    expected = [
        F.cross_entropy(logits[s][mask_M], labels[s][mask_M], reduction="sum") for s in range(2)
    ]
    torch.testing.assert_close(sums.loss, (expected[0] + expected[1]) / 2)
    torch.testing.assert_close(sums.loss_S, torch.stack(expected))
    assert not sums.loss_S.requires_grad
    assert sums.count == mask_M.sum()
    for s in range(2):
        assert sums.correct_S[s] == (logits[s][mask_M].argmax(-1) == labels[s][mask_M]).sum()


def test_filler_clips_count_nothing_in_frames() -> None:
    logits, labels, mask_M = frames()
    weight_M = mask_M * torch.tensor([1.0] * 10 + [0.0] * 6)
    part = frame_prediction_sums(terms_of(logits, labels), weight_M)
    kept = frame_prediction_sums(terms_of([x[:10] for x in logits], labels[:, :10]), mask_M[:10])
    torch.testing.assert_close(part.loss, kept.loss)
    assert part.count == kept.count
    assert torch.equal(part.correct_S, kept.correct_S)


def test_a_rank_without_a_frame_still_has_a_gradient() -> None:
    logits, labels, mask_M = frames()
    sums = frame_prediction_sums(terms_of(logits, labels), mask_M & False)
    assert sums.loss == 0
    assert sums.count == 0
    sums.loss.backward()
    assert all(x.grad is not None and not x.grad.any() for x in logits)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("at_a_time", [1, 33, 10**6])
def test_frame_terms_and_gradients_are_torchs_in_any_pieces(
    monkeypatch: pytest.MonkeyPatch, at_a_time: int, with_bias: bool
) -> None:
    monkeypatch.setattr(frame_losses, "_MOST_LOGITS", at_a_time)
    generator = torch.Generator().manual_seed(0)
    x_MD, weight_KD = (
        torch.randn(n, 6, generator=generator, dtype=torch.float64, requires_grad=True)
        for n in (13, 7)
    )
    bias_K = torch.randn(7, generator=generator, dtype=torch.float64, requires_grad=True)
    labels_M = torch.randint(7, (13,), generator=generator)
    upstream_M = torch.rand(13, generator=generator, dtype=torch.float64)
    given = [x_MD, weight_KD, *([bias_K] if with_bias else [])]

    found = frame_losses.frame_terms(x_MD, weight_KD, bias_K if with_bias else None, labels_M, 3.0)
    logits_MK = 3.0 * x_MD @ weight_KD.t() + (bias_K if with_bias else 0.0)
    expected_M = F.cross_entropy(logits_MK, labels_M, reduction="none")

    torch.testing.assert_close(found.loss_M, expected_M)
    assert torch.equal(found.correct_M, logits_MK.argmax(1) == labels_M)
    gradients = (
        torch.autograd.grad((upstream_M * loss_M).sum(), given)
        for loss_M in (found.loss_M, expected_M)
    )
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_labels_of_another_codebook_are_refused() -> None:
    labels_SM = np.array([[0, 4], [1, 11]])
    check_labels(labels_SM, (5, 12))
    check_labels(labels_SM[:, :0], (5, 12))
    with pytest.raises(ValueError, match=r"scale 1 run from 1 to 11, .* 11 clusters"):
        check_labels(labels_SM, (5, 11))
    with pytest.raises(ValueError, match="from -100"):
        check_labels(np.array([[0, -100]]), (5,))
    with pytest.raises(ValueError, match="1 heads with labels of 2 scales"):
        check_labels(labels_SM, (5,))


def test_feature_penalty_leaves_out_filler_clips() -> None:
    features_MC = torch.randn(12, 4)
    weight_M = torch.tensor([1.0] * 9 + [0.0] * 3)
    total, count = feature_penalty_sum(features_MC, weight_M)
    torch.testing.assert_close(total / count, features_MC[:9].square().mean())
    assert count == 9


def test_balanced_weights_are_scikit_learns() -> None:
    counts = [3, 1, 6]
    labels = np.repeat(np.arange(3), counts)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(balanced_class_weights(counts).numpy(), expected, rtol=1e-6)
    assert balanced_class_weights([2, 0]).tolist() == [0.5, 0.0]
    with pytest.raises(ValueError, match="hold no example"):
        balanced_class_weights([0, 0])
