"""Losses and their gradients against float64 references written from the papers' formulas.

Shapes: B batch, T frames, D hidden size, P projected size, C channels, K classes or clusters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from gmp_atl_dist.models.frame_losses import FrameTerms
from gmp_atl_dist.models.heads import FrameHead
from gmp_atl_dist.models.hubert import build_random, pad_waves
from gmp_atl_dist.models.losses import (
    FrameSums,
    feature_penalty_sum,
    frame_prediction_sums,
    weighted_cross_entropy_sum,
)
from gmp_atl_dist.models.margin_losses import AmSoftmax
from gmp_atl_dist.models.multitask import RetrainModel
from gmp_atl_dist.models.packing import pad_rows
from gmp_atl_dist.models.padding import valid_steps

torch.set_num_threads(1)


def leaf(x: Tensor) -> Tensor:
    """A float64 copy that collects a gradient of its own."""
    return x.detach().double().requires_grad_()


def assert_same(found: Tensor | None, expected: Tensor | None) -> None:
    """Equal but for the rounding of float32, measured against the largest element."""
    assert found is not None
    assert expected is not None
    # Logits of up to 30 are rounded at 2e-6, and so is a loss that is next to nothing.
    atol = 1e-5 * float(expected.detach().abs().max()) + 1e-5
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=atol)


def cosine(a_D: Tensor, b_D: Tensor) -> Tensor:
    return (a_D * b_D).sum() / (a_D.square().sum().sqrt() * b_D.square().sum().sqrt())


def masked_sums(
    heads: Sequence[FrameHead], x_BTD: Tensor, labels_SBT: Tensor, masked_BT: Tensor
) -> FrameSums:
    """Of the masked frames, which are the only ones that the heads are given."""
    terms: list[FrameTerms] = []
    for head, labels_BT in zip(heads, labels_SBT, strict=True):
        found = head(x_BTD[masked_BT], labels_BT[masked_BT])
        assert isinstance(found, FrameTerms)
        terms.append(found)
    return frame_prediction_sums(terms, torch.ones(int(masked_BT.sum())))


class HubertReference:
    """HuBERT (Hsu et al. 2021), equations 1 to 3, term by term: the loss of one scale's codebook."""

    def __init__(self, head: FrameHead, temperature: float) -> None:
        self.projection_PD = leaf(head.projection.weight)
        self.bias_P = leaf(head.projection.bias)
        self.label_embeddings_KP = leaf(head.label_embeddings)
        self.temperature = temperature

    def loss(self, x_BTD: Tensor, labels_BT: Tensor, masked_BT: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for b, t in masked_BT.nonzero().tolist():
            projected_P = self.projection_PD @ x_BTD[b, t] + self.bias_P
            similarities_K = torch.stack(
                [cosine(projected_P, e_P) / self.temperature for e_P in self.label_embeddings_KP]
            )
            probability = similarities_K[labels_BT[b, t]].exp() / similarities_K.exp().sum()
            total = total - probability.log()
        return total

    def check_gradients(self, head: FrameHead) -> None:
        assert_same(head.projection.weight.grad, self.projection_PD.grad)
        assert_same(head.projection.bias.grad, self.bias_P.grad)
        assert_same(head.label_embeddings.grad, self.label_embeddings_KP.grad)


def mean_over_scales(
    references: Sequence[HubertReference], x_BTD: Tensor, labels_SBT: Tensor, masked_BT: Tensor
) -> Tensor:
    """Of all codebooks; HuBERT's section 2.3 adds them up, ours weighs them 1 / S each."""
    losses = [
        r.loss(x_BTD, labels_BT, masked_BT)
        for r, labels_BT in zip(references, labels_SBT, strict=True)
    ]
    return torch.stack(losses).sum() / len(losses)


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1),
    lengths_B=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    ks=st.lists(st.integers(2, 6), min_size=1, max_size=3),
    temperature=st.sampled_from([0.05, 0.1, 1.0]),
)
def test_masked_prediction_and_its_gradients_are_huberts_equations_1_to_3(
    seed: int, lengths_B: list[int], ks: list[int], temperature: float
) -> None:
    torch.manual_seed(seed)
    frames = max(lengths_B)
    valid_BT = torch.arange(frames) < torch.tensor(lengths_B)[:, None]
    masked_BT = (torch.rand(valid_BT.shape) < 0.6) & valid_BT
    masked_BT[0, 0] = True
    labels_SBT = torch.stack([torch.randint(k, valid_BT.shape) for k in ks])
    x_BTD = torch.randn(*valid_BT.shape, 4, requires_grad=True)
    heads = [FrameHead(4, 3, k, temperature) for k in ks]
    references, x64_BTD = [HubertReference(head, temperature) for head in heads], leaf(x_BTD)

    sums = masked_sums(heads, x_BTD, labels_SBT, masked_BT)
    (sums.loss / sums.count).backward()
    expected = mean_over_scales(references, x64_BTD, labels_SBT, masked_BT) / masked_BT.sum()
    expected.backward()

    assert_same(sums.loss / sums.count, expected)
    assert_same(x_BTD.grad, x64_BTD.grad)
    for head, reference in zip(heads, references, strict=True):
        reference.check_gradients(head)
    assert x_BTD.grad is not None
    assert not x_BTD.grad[~masked_BT].any(), "frames that are not masked teach nothing"


def test_the_models_own_heads_read_the_last_layer_under_the_mask() -> None:
    torch.manual_seed(0)
    hubert = build_random("tiny", 0)
    hubert.set_dropout(0.0)
    model = RetrainModel(hubert, [5, 7], masked=True, projection_dim=6, temperature=0.1)
    rng = np.random.default_rng(0)
    waves = [rng.standard_normal(n).astype(np.float32) for n in (2000, 400)]
    mask_BT = torch.tensor([[False, True, True, False, True, False], [True] + [False] * 5])
    labels_SBT = torch.stack([torch.randint(k, mask_BT.shape) for k in (5, 7)])
    counts = (6, 1)
    own_BT = valid_steps(torch.tensor(counts), 6)
    seen: list[Tensor] = []
    for head in model.heads:
        head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    output = model(*pad_waves(waves), labels_SBT[:, own_BT], mask_M=mask_BT[own_BT])
    x_MD = seen[0]
    x_MD.retain_grad()
    x_BTD = pad_rows(x_MD, counts)
    heads = [head for head in model.heads if isinstance(head, FrameHead)]
    references, x64_BTD = [HubertReference(head, 0.1) for head in heads], leaf(x_BTD)

    sums = frame_prediction_sums(output.terms, mask_BT[own_BT])
    sums.loss.backward()
    expected = mean_over_scales(references, x64_BTD, labels_SBT, mask_BT)
    expected.backward()

    assert sums.count == 4
    assert_same(sums.loss, expected)
    assert x64_BTD.grad is not None
    assert_same(x_MD.grad, x64_BTD.grad[own_BT])
    for head, reference in zip(heads, references, strict=True):
        reference.check_gradients(head)
    embedding = hubert.masked_spec_embed.grad
    assert embedding is not None
    assert embedding.any(), "the mask was what the backbone saw"


def test_masked_prediction_and_its_gradients_are_torchaudios() -> None:
    components = pytest.importorskip("torchaudio.models.wav2vec2.components")
    torch.manual_seed(0)
    theirs = components.LogitGenerator(6, 5, 4, skip_masked=False, skip_nomask=True)
    head = FrameHead(6, 4, 5, temperature=0.1)
    with torch.no_grad():
        head.projection.load_state_dict(theirs.final_proj.state_dict())
        head.label_embeddings.copy_(theirs.label_embeddings)
    x_BTD, labels_BT = torch.randn(2, 9, 6, requires_grad=True), torch.randint(5, (2, 9))
    mask_BT = torch.rand(2, 9) < 0.5

    other_BTD = x_BTD.detach().clone().requires_grad_()
    logits_MK, _ = theirs(other_BTD, labels_BT, mask_BT, ~mask_BT)
    # Column 0 is the label's own; where it stands among the others there is minus infinity.
    expected = F.cross_entropy(logits_MK, torch.zeros(len(logits_MK)).long(), reduction="sum")
    expected.backward()
    sums = masked_sums([head], x_BTD, labels_BT[None], mask_BT)
    sums.loss.backward()

    torch.testing.assert_close(sums.loss, expected)
    torch.testing.assert_close(x_BTD.grad, other_BTD.grad)
    torch.testing.assert_close(head.projection.weight.grad, theirs.final_proj.weight.grad)
    torch.testing.assert_close(head.label_embeddings.grad, theirs.label_embeddings.grad)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    target=st.lists(st.integers(0, 2), min_size=1, max_size=5),
    scale=st.sampled_from([1.0, 30.0]),
    margin=st.sampled_from([0.0, 0.2, 0.9]),
)
def test_am_softmax_and_its_gradients_are_equation_6(
    seed: int, target: list[int], scale: float, margin: float
) -> None:
    """Wang et al. 2018, arXiv 1801.05599."""
    torch.manual_seed(seed)
    head = AmSoftmax(5, 3, scale, margin)
    x_BD, class_weight_K = torch.randn(len(target), 5, requires_grad=True), torch.rand(3) + 0.1
    x64_BD, w64_KD = leaf(x_BD), leaf(head.weight)

    target_B = torch.tensor(target)
    loss, count = weighted_cross_entropy_sum(
        head.loss_logits(x_BD, target_B), target_B, class_weight_K
    )
    (loss / count).backward()

    expected = torch.zeros((), dtype=torch.float64)
    for x_D, y in zip(x64_BD, target, strict=True):
        cosines = [cosine(x_D, w_D) for w_D in w64_KD]
        numerator = (scale * (cosines[y] - margin)).exp()
        others = sum((scale * c).exp() for j, c in enumerate(cosines) if j != y)
        expected = expected - class_weight_K[y].double() * (numerator / (numerator + others)).log()
    (expected / class_weight_K[target].double().sum()).backward()

    assert_same(loss, expected)
    assert_same(x_BD.grad, x64_BD.grad)
    assert_same(head.weight.grad, w64_KD.grad)
    without_margin = [[scale * cosine(x_D, w_D).item() for w_D in w64_KD] for x_D in x64_BD]
    torch.testing.assert_close(
        head(x_BD).double(), torch.tensor(without_margin).double(), atol=1e-4, rtol=1e-4
    )


def test_the_feature_penaltys_gradient_is_that_of_the_mean_square() -> None:
    features_BTC = torch.randn(3, 4, 5, requires_grad=True)
    own_BT = torch.arange(4) < torch.tensor([4, 1, 2])[:, None]
    weight_M = torch.tensor([1.0, 1.0, 0.0])[:, None].expand(3, 4)[own_BT]
    total, count = feature_penalty_sum(features_BTC[own_BT], weight_M)
    (total / count).backward()

    expected = torch.zeros(3, 4, 5)
    frames = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]
    for b, t in frames:
        # d/dx of sum(x^2) / (frames * channels)
        expected[b, t] = 2 * features_BTC[b, t].detach() / (len(frames) * 5)
    torch.testing.assert_close(features_BTC.grad, expected)
