"""Loss sums against torch's own losses, whatever the split over ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

from gmp_atl_dist.models.losses import (
    IGNORED_LABEL,
    balanced_class_weights,
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


def frames() -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(3, 8, k, generator=generator, requires_grad=True) for k in (5, 11)]
    labels = torch.stack([torch.randint(k, (3, 8), generator=generator) for k in (5, 11)])
    valid_BT = torch.arange(8) < torch.tensor([8, 3, 5])[:, None]
    labels[:, ~valid_BT] = IGNORED_LABEL
    mask_BT = torch.rand(3, 8, generator=generator) < 0.6
    return logits, labels, mask_BT, valid_BT


def test_masked_prediction_is_torchs_over_masked_valid_frames() -> None:
    logits, labels, mask_BT, valid_BT = frames()
    sums = frame_prediction_sums(logits, labels, mask_BT & valid_BT)
    chosen = mask_BT & valid_BT
    expected = [
        F.cross_entropy(logits[s][chosen], labels[s][chosen], reduction="sum") for s in range(2)
    ]
    torch.testing.assert_close(sums.loss, (expected[0] + expected[1]) / 2)
    torch.testing.assert_close(sums.loss_S, torch.stack(expected))
    assert not sums.loss_S.requires_grad
    assert sums.count == chosen.sum()
    for s in range(2):
        assert sums.correct_S[s] == (logits[s][chosen].argmax(-1) == labels[s][chosen]).sum()


def test_plain_frame_prediction_is_torchs_with_ignored_padding() -> None:
    logits, labels, _, valid_BT = frames()
    sums = frame_prediction_sums(logits[:1], labels[:1], valid_BT)
    expected = F.cross_entropy(logits[0].transpose(1, 2), labels[0], ignore_index=IGNORED_LABEL)
    torch.testing.assert_close(sums.loss / sums.count, expected)


def test_filler_rows_count_nothing_in_frames() -> None:
    logits, labels, mask_BT, valid_BT = frames()
    row_weight_B = torch.tensor([1.0, 1.0, 0.0])
    part = frame_prediction_sums(logits, labels, mask_BT & valid_BT, row_weight_B)
    kept = frame_prediction_sums([x[:2] for x in logits], labels[:, :2], mask_BT[:2] & valid_BT[:2])
    torch.testing.assert_close(part.loss, kept.loss)
    assert part.count == kept.count
    assert torch.equal(part.correct_S, kept.correct_S)


def test_a_rank_without_a_frame_still_has_a_gradient() -> None:
    logits, labels, mask_BT, _ = frames()
    sums = frame_prediction_sums(logits, labels, mask_BT & False)
    assert sums.loss == 0
    assert sums.count == 0
    sums.loss.backward()
    assert all(x.grad is not None and not x.grad.any() for x in logits)


def test_labels_of_another_codebook_are_refused() -> None:
    logits, labels, mask_BT, valid_BT = frames()
    labels[1, 0, 0] = 11
    mask_BT[0, 0] = True
    with pytest.raises(ValueError, match=r"scale 1 run from \d+ to 11 .* 11 clusters"):
        frame_prediction_sums(logits, labels, mask_BT & valid_BT)
    labels[1, 0, 0] = IGNORED_LABEL
    with pytest.raises(ValueError, match="from -100"):
        frame_prediction_sums(logits, labels, mask_BT & valid_BT)
    with pytest.raises(ValueError, match="1 heads with labels of 2 scales"):
        frame_prediction_sums(logits[:1], labels, mask_BT & valid_BT)


def test_feature_penalty_leaves_out_padding_and_filler_rows() -> None:
    features_BTC = torch.randn(3, 8, 4)
    valid_BT = torch.arange(8) < torch.tensor([8, 3, 5])[:, None]
    row_weight_B = torch.tensor([1.0, 1.0, 0.0])
    features_BTC[1, 3:] = float("inf")
    total, count = feature_penalty_sum(features_BTC, valid_BT, row_weight_B)
    expected = torch.cat([features_BTC[0], features_BTC[1, :3]]).square().mean()
    torch.testing.assert_close(total / count, expected)
    assert count == 11


def test_balanced_weights_are_scikit_learns() -> None:
    counts = [3, 1, 6]
    labels = np.repeat(np.arange(3), counts)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(balanced_class_weights(counts).numpy(), expected, rtol=1e-6)
    assert balanced_class_weights([2, 0]).tolist() == [0.5, 0.0]
    with pytest.raises(ValueError, match="hold no example"):
        balanced_class_weights([0, 0])
