"""Training without padding against the reference path: values, gradients, dropout, and the curve.

Shapes: B clips, M frames of all clips, T frames of a clip, D hidden size, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import HubertConfig

from gmp_atl_dist.audio import num_frames
from gmp_atl_dist.models import hubert as hubert_module
from gmp_atl_dist.models import packed_conv, packed_scores
from gmp_atl_dist.models.backbone import SpeechBackbone
from gmp_atl_dist.models.hubert import Hubert
from gmp_atl_dist.models.keyed_dropout import kept_rows, scale_of
from gmp_atl_dist.models.packed_training import can_pack
from gmp_atl_dist.models.packing import PackedFrames, Packing, pad_rows
from gmp_atl_dist.models.sizes import NAMED_SIZES

torch.set_num_threads(1)

Variant = Literal["base", "large", "biased"]
VARIANTS: dict[Variant, dict[str, object]] = {
    "base": {},
    "large": {"conv_bias": True, "feat_extract_norm": "layer", "do_stable_layer_norm": True},
    "biased": {"conv_bias": True, "num_conv_pos_embeddings": 15, "feat_proj_layer_norm": False},
}
LENGTHS = (16_000, 400, 33_000, 720, 5_000)
COUNTS = tuple(map(num_frames, LENGTHS))
LAYERS = (0, 1, 2, 3)
NO_EFFECT = ("k_proj.bias", "conv_layers.0.conv.bias")


def model_of(variant: Variant, dtype: torch.dtype = torch.float64, dropout: float = 0.0) -> Hubert:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Hubert(HubertConfig.from_dict({**NAMED_SIZES["tiny"], **VARIANTS[variant]}))
    model.set_dropout(dropout)
    model.train()
    return model.double() if dtype == torch.float64 else model.float()


def clips(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    wave_BN = torch.randn(len(LENGTHS), max(LENGTHS), generator=generator, dtype=torch.float64) / 10
    return wave_BN.to(dtype), torch.tensor(LENGTHS)


def mask() -> Tensor:
    return torch.rand(sum(COUNTS), generator=torch.Generator().manual_seed(2)) < 0.4


def loss_of(frames: PackedFrames) -> Tensor:
    """It has a gradient of its own for each value."""
    generator = torch.Generator().manual_seed(3)
    values = [*frames.hidden.values(), frames.conv_features_MC]
    total = values[0].new_zeros(())
    for x_MD in values:
        weight_MD = torch.randn(x_MD.shape, generator=generator, dtype=torch.float64)
        total = total + (weight_MD.to(x_MD.dtype) * x_MD).sum()
    return total


def gradients(model: Hubert, frames: PackedFrames) -> dict[str, Tensor]:
    model.zero_grad()
    loss_of(frames).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same(
    model: Hubert, found: PackedFrames, expected: PackedFrames, tolerance: float
) -> None:
    """Values and the gradient of every parameter, relative to the largest element."""
    assert found.num_frames == expected.num_frames == COUNTS
    pairs = {f"layer {i}": (found.hidden[i], expected.hidden[i]) for i in expected.hidden}
    pairs["features"] = found.conv_features_MC, expected.conv_features_MC
    ours, theirs = gradients(model, found), gradients(model, expected)
    assert ours.keys() == theirs.keys()
    largest = max(float(g.abs().max()) for g in theirs.values())
    for name, (x, y) in (pairs | {n: (ours[n], theirs[n]) for n in ours}).items():
        # A bias of keys, or one that a norm subtracts, has no effect: its gradient is rounding only.
        size = largest if name.endswith(NO_EFFECT) else float(y.detach().abs().max())
        assert float((x - y).detach().abs().max()) <= tolerance * max(size, 1e-30), name


def reference(model: Hubert, *given: Tensor, **options: object) -> PackedFrames:
    return SpeechBackbone.packed_frames(model, *given, **options)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_values_and_gradients_are_those_of_the_reference(
    variant: Variant, dtype: torch.dtype, tolerance: float
) -> None:
    model, given = model_of(variant, dtype), clips(dtype)
    mask_BD = torch.rand(len(LENGTHS), model.hidden_size) < 0.2
    options = {"mask_M": mask(), "mask_BD": mask_BD, "want": LAYERS}
    assert can_pack(model)
    found = model.packed_frames(*given, **options)
    assert_same(model, found, reference(model, *given, **options), tolerance)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("recompute", [False, True])
def test_the_operations_of_a_gpu_give_the_same(
    monkeypatch: pytest.MonkeyPatch, variant: Variant, recompute: bool
) -> None:
    """Run on the CPU, without dropout; a GPU's dropout follows torch's random state."""
    monkeypatch.setattr(hubert_module, "on_gpu", lambda _: True)
    model, given = model_of(variant), clips()
    if recompute:
        model.checkpoint_activations()
    options = {"mask_M": mask(), "mask_BD": torch.rand(5, 64) < 0.2, "want": LAYERS}
    found = model.packed_frames(*given, **options)
    assert_same(model, found, reference(model, *given, **options), 1e-10)


def test_dropout_of_a_gpu_is_drawn_again_for_recomputed_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hubert_module, "on_gpu", lambda _: True)
    found: list[dict[str, Tensor]] = []
    for recompute in (False, True):
        model = model_of("base", dropout=0.3)
        if recompute:
            model.checkpoint_activations()
        torch.manual_seed(4)
        found.append(gradients(model, model.packed_frames(*clips(), want=LAYERS, seeds=range(5))))
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=1e-12, atol=1e-12)
    plain = model_of("base")
    dropped = found[0]["encoder.layers.0.feed_forward.output_dense.weight"]
    kept = gradients(plain, plain.packed_frames(*clips(), want=LAYERS))
    assert not torch.allclose(dropped, kept["encoder.layers.0.feed_forward.output_dense.weight"])


def test_long_clips_are_computed_in_pieces_with_the_same_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Attention weights are computed again, two heads at a time; convolutions in chunks of 7 frames."""
    monkeypatch.setattr(packed_scores, "_MOST_KEPT_FRAMES", 10)
    monkeypatch.setattr(packed_scores, "_MOST_WEIGHTS", 2 * max(COUNTS) ** 2)
    monkeypatch.setattr(packed_conv, "_CHUNK_FRAMES", 7)
    model, given = model_of("large"), clips()
    found = model.packed_frames(*given, want=LAYERS)
    assert_same(model, found, reference(model, *given, want=LAYERS), 1e-10)


def test_layers_are_passed_on_and_gradients_scaled_as_in_the_reference() -> None:
    model, given = model_of("base"), clips()
    model.enable_layer_drop()
    model.dropped_layers = frozenset({2})
    model.front_end_gradient = 0.1
    found = model.packed_frames(*given, want=LAYERS)
    assert torch.equal(found.hidden[2], found.hidden[1])
    assert_same(model, found, reference(model, *given, want=LAYERS), 1e-10)
    model.gradient_blocked = True
    found = model.packed_frames(*given, want=LAYERS)
    assert not any(g.any() for g in gradients(model, found).values())


def test_kept_outputs_of_the_convolutions_are_read() -> None:
    model, (wave_BN, num_samples_B) = model_of("base"), clips()
    conv_MC = model.packed_frames(wave_BN, num_samples_B).conv_features_MC
    conv_BTC = pad_rows(conv_MC.detach(), COUNTS) + 0.0
    conv_BTC[1, COUNTS[1] :] = torch.inf  # padding, which nothing reads
    found = model.packed_frames(conv_BTC, num_samples_B, want=LAYERS)
    expected = model.packed_frames(wave_BN, num_samples_B, want=LAYERS)
    for layer in LAYERS:
        torch.testing.assert_close(found.hidden[layer], expected.hidden[layer])


def test_frozen_convolutions_get_no_gradient() -> None:
    model, given = model_of("base", torch.float32), clips(torch.float32)
    expected = model.packed_frames(*given)
    model.freeze_front_end()
    found = model.packed_frames(*given)
    torch.testing.assert_close(found.hidden[3], expected.hidden[3], rtol=1e-4, atol=1e-5)
    with_gradient = gradients(model, found)
    assert not [n for n in with_gradient if n.startswith("feature_extractor.")]
    assert "feature_projection.projection.weight" in with_gradient


def alone(model: Hubert, seeds: Sequence[int]) -> PackedFrames:
    """Each clip in a pass of its own."""
    wave_BN, num_samples_B = clips()
    passes = [
        model.packed_frames(
            wave_BN[[i], :n], num_samples_B[[i]], want=LAYERS, seeds=seeds[i : i + 1]
        )
        for i, n in enumerate(LENGTHS)
    ]
    hidden = {i: torch.cat([one.hidden[i] for one in passes]) for i in LAYERS}
    return PackedFrames(hidden, COUNTS, torch.cat([one.conv_features_MC for one in passes]))


@pytest.mark.parametrize("variant", ["base", "large"])
def test_dropout_of_a_clip_does_not_know_what_it_is_packed_with(variant: Variant) -> None:
    model, seeds = model_of(variant, dropout=0.3), [5, 4, 3, 2, 1]
    together = model.packed_frames(*clips(), want=LAYERS, seeds=seeds)
    assert_same(model, together, alone(model, seeds), 1e-10)
    others = model.packed_frames(*clips(), want=LAYERS, seeds=[6, 4, 3, 2, 1])
    own, other = (x.hidden[3].split(COUNTS) for x in (together, others))
    assert not torch.allclose(own[0], other[0])
    assert torch.equal(own[2], other[2])


def test_activation_checkpointing_drops_the_same_again() -> None:
    kept, again = (model_of("base", dropout=0.3) for _ in range(2))
    again.checkpoint_activations()
    ours, theirs = (
        gradients(x, x.packed_frames(*clips(), want=LAYERS, seeds=range(5))) for x in (again, kept)
    )
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-12, atol=1e-12)


def test_attention_weights_that_are_computed_again_drop_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = model_of("base", dropout=0.3)
    kept = gradients(model, model.packed_frames(*clips(), want=LAYERS, seeds=range(5)))
    monkeypatch.setattr(packed_scores, "_MOST_KEPT_FRAMES", 10)
    again = gradients(model, model.packed_frames(*clips(), want=LAYERS, seeds=range(5)))
    for name in kept:
        torch.testing.assert_close(again[name], kept[name], rtol=1e-12, atol=1e-12)


def test_without_seeds_dropout_follows_the_global_random_state() -> None:
    model = model_of("base", dropout=0.3)
    found: list[Tensor] = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(model.packed_frames(*clips()).hidden[3])
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])
    model.eval()
    torch.testing.assert_close(
        model.packed_frames(*clips()).hidden[3], reference(model, *clips()).hidden[3]
    )


def test_every_place_drops_and_keeps_the_mean() -> None:
    """Each dropout of HuBERT alone moves the output, and the share that is dropped is p."""
    packing = Packing((3000, 1, 500), (7, 8, 9))
    for p in (0.1, 0.5):
        kept_MD = kept_rows(packing, 3, 64, p)
        share = 1.0 - float(kept_MD.double().mean())
        assert share == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / kept_MD.numel()))
        assert float(kept_MD.double().mean()) * scale_of(p) == pytest.approx(1.0, abs=0.01)
        assert not torch.equal(kept_MD, kept_rows(packing, 4, 64, p))
    plain = model_of("base").packed_frames(*clips()).hidden[3]
    keys = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout")
    for key in keys:
        config = HubertConfig.from_dict(
            {**NAMED_SIZES["tiny"], **dict.fromkeys(keys, 0.0), key: 0.2}
        )
        model = Hubert(config).double().train()
        model.load_state_dict(model_of("base").state_dict())
        dropped = model.packed_frames(*clips(), seeds=range(5)).hidden[3]
        assert not torch.allclose(dropped, plain, atol=1e-3), key


def test_other_activations_take_the_reference_path() -> None:
    config = HubertConfig.from_dict({**NAMED_SIZES["tiny"], "hidden_act": "relu"})
    model = Hubert(config).double().eval()
    assert not can_pack(model)
    found = model.packed_frames(*clips(), mask_M=mask(), want=LAYERS)
    expected = reference(model, *clips(), mask_M=mask(), want=LAYERS)
    assert all(torch.equal(found.hidden[i], expected.hidden[i]) for i in LAYERS)


@pytest.mark.parametrize("variant", ["base", "large"])
def test_sixty_updates_give_the_curve_of_the_reference(variant: Variant) -> None:
    """AdamW from the same weights; each update's clips are other ones."""
    generator = torch.Generator().manual_seed(0)
    wave_UBN = torch.randn(6, 3, 6_000, generator=generator) / 10
    num_samples_B = torch.tensor([6_000, 3_000, 1_000])
    curves: list[list[float]] = []
    for frames_of in (Hubert.packed_frames, SpeechBackbone.packed_frames):
        model = model_of(variant, torch.float32)
        target_D = torch.ones(model.hidden_size)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
        curve: list[float] = []
        for update in range(60):
            frames = frames_of(model, wave_UBN[update % 6], num_samples_B)
            loss = (frames.hidden[3] - target_D).square().mean()
            loss = loss + frames.conv_features_MC.square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curve.append(float(loss.detach()))
        curves.append(curve)
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-5)
    assert curves[0][-1] < 0.95 * curves[0][0], "it learns"
