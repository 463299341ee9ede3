"""The backbone: equal to stock, and independent of the batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import HubertConfig, HubertModel
from transformers.models.hubert.modeling_hubert import HubertAttention

from gmp_atl_dist.audio import num_frames
from gmp_atl_dist.errors import CorpusError, ModelError
from gmp_atl_dist.models.backbone import FrameOutput
from gmp_atl_dist.models.backbone_config import check_layers
from gmp_atl_dist.models.hubert import (
    NAMED_SIZES,
    Hubert,
    build_random,
    pad_waves,
)
from gmp_atl_dist.models.padding import ClipGroupNorm, normalize_waves

torch.set_num_threads(1)

LENGTHS = [16000, 400, 719, 720, 8043, 12345, 15999, 3201]


def build(norm: str, *, normalize: bool = False, attention: str = "sdpa") -> Hubert:
    config = HubertConfig.from_dict(dict(NAMED_SIZES["tiny"]))
    config.feat_extract_norm = norm
    config.do_stable_layer_norm = norm == "layer"
    config.conv_bias = norm == "layer"
    config._attn_implementation = attention
    setattr(config, "normalize_waveform", normalize)  # noqa: B010
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Hubert(config).eval()


def clips(lengths: list[int] | None = None, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    # A level and an offset of its own for each, as recordings have.
    return [
        (0.02 * (i + 1) * rng.standard_normal(n) + 0.01 * i).astype(np.float32)
        for i, n in enumerate(lengths or LENGTHS)
    ]


@torch.no_grad()
def run(model: Hubert, waves: list[np.ndarray]) -> FrameOutput:
    layers = range(model.config.num_hidden_layers + 1)
    return model.forward_frames(*pad_waves(waves), want=layers)


def worst_difference(model: Hubert) -> float:
    waves = clips()
    batch = run(model, waves)
    worst = 0.0
    for b, wave in enumerate(waves):
        alone = run(model, [wave])
        frames = num_frames(len(wave))
        assert alone.num_frames_B.tolist() == [frames]
        assert int(batch.num_frames_B[b]) == frames
        assert batch.valid_BT[b].nonzero().flatten().tolist() == list(range(frames))
        pairs = [(batch.hidden[i][b], alone.hidden[i][0]) for i in alone.hidden]
        pairs.append((batch.conv_features_BTC[b], alone.conv_features_BTC[0]))
        for in_batch, by_itself in pairs:
            worst = max(worst, float((in_batch[:frames] - by_itself).abs().max()))
    return worst


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_features_do_not_depend_on_the_batch(norm: str, normalize: bool, attention: str) -> None:
    worst = worst_difference(build(norm, normalize=normalize, attention=attention))
    print(f"{norm} norm, normalize={normalize}, {attention}: worst difference {worst:.2e}")
    assert worst < 1e-4


def test_stock_group_norm_would_depend_on_the_batch() -> None:
    """The test above can fail: with the stock layer it does."""
    model = build("group")
    first = model.feature_extractor.conv_layers[0]
    stock = torch.nn.GroupNorm(32, 32)
    first.layer_norm = stock
    assert worst_difference(model) > 1e-2


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_padding_is_never_read(norm: str) -> None:
    model = build(norm, normalize=True)
    wave_BN, num_samples_B = pad_waves(clips())
    noisy_BN = wave_BN.clone()
    for row, n in zip(noisy_BN, num_samples_B, strict=True):
        row[n:] = 7.0
    with torch.no_grad():
        clean = model.forward_frames(wave_BN, num_samples_B)
        noisy = model.forward_frames(noisy_BN, num_samples_B)
    assert torch.allclose(
        clean.hidden[3][clean.valid_BT], noisy.hidden[3][noisy.valid_BT], atol=1e-6
    )


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_equals_stock_for_a_single_clip(norm: str) -> None:
    model = build(norm)
    stock_config = HubertConfig.from_dict({**model.config.to_dict(), "mask_time_prob": 0.05})
    stock = HubertModel(stock_config).eval()
    stock.load_state_dict(model.state_dict())
    (wave,) = clips([9000])
    with torch.no_grad():
        expected = stock(torch.from_numpy(wave)[None], output_hidden_states=True)
    found = run(model, [wave])
    for i in range(3):
        torch.testing.assert_close(found.hidden[i], expected.hidden_states[i], atol=1e-5, rtol=0)
    torch.testing.assert_close(found.hidden[3], expected.last_hidden_state, atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_early_stop_equals_the_full_pass_and_leaves_out_later_layers(norm: str) -> None:
    model = build(norm)
    full = run(model, clips())
    calls: list[int] = []
    for i, layer in enumerate(model.encoder.layers, start=1):
        layer.register_forward_hook(lambda *_, i=i: calls.append(i))
    with torch.no_grad():
        part = model.forward_frames(*pad_waves(clips()), want=[2, 0])
    assert list(part.hidden) == [2, 0]
    assert calls == [1, 2]
    for i in part.hidden:
        assert torch.equal(part.hidden[i], full.hidden[i])


TINY = build_random("tiny", 0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(400, 4000), min_size=1, max_size=3))
def test_frame_count_is_the_formula(lengths: list[int]) -> None:
    with torch.no_grad():
        output = TINY.forward_frames(*pad_waves(clips(lengths)), want=[0])
    assert output.num_frames_B.tolist() == [(n - 400) // 320 + 1 for n in lengths]
    assert output.hidden[0].shape[1] == output.valid_BT.shape[1] == max(output.num_frames_B)


def test_masked_frames_change_and_the_embedding_learns() -> None:
    model = build("group").train()
    model.set_dropout(0.0)
    wave_BN, num_samples_B = pad_waves(clips([400, 8000]))
    mask_BT = torch.zeros(2, num_frames(8000), dtype=torch.bool)
    mask_BT[0, :10] = True  # behind the end of the short clip, too
    mask_BT[1, 5:15] = True
    masked = model.forward_frames(wave_BN, num_samples_B, mask_BT=mask_BT, want=[0, 3])
    plain = model.forward_frames(wave_BN, num_samples_B, want=[0, 3])
    difference_BT = (masked.hidden[0] - plain.hidden[0]).abs().amax(-1)
    assert (difference_BT[mask_BT & masked.valid_BT] > 1e-3).all()
    assert torch.isfinite(masked.hidden[3]).all()
    masked.hidden[3][masked.valid_BT].square().sum().backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert not missing
    assert model.masked_spec_embed.grad is not None
    assert model.masked_spec_embed.grad.abs().sum() > 0


def test_a_mask_of_nothing_still_gives_every_parameter_a_gradient() -> None:
    model = build("layer").train()
    wave_BN, num_samples_B = pad_waves(clips([2000]))
    mask_BT = torch.zeros(1, num_frames(2000), dtype=torch.bool)
    output = model.forward_frames(wave_BN, num_samples_B, mask_BT=mask_BT)
    output.hidden[3].sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_frozen_convolutions_get_no_gradient() -> None:
    model = build("group").train()
    model.freeze_front_end()
    model.train_mask_embedding(False)
    output = model.forward_frames(*pad_waves(clips()))
    assert not output.conv_features_BTC.requires_grad
    output.hidden[3].sum().backward()
    for name, p in model.named_parameters():
        frozen = name.startswith("feature_extractor") or name == "masked_spec_embed"
        assert (p.grad is None) == frozen, name


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_frozen_convolutions_have_the_same_bits_in_every_batch(norm: str, normalize: bool) -> None:
    model = build(norm, normalize=normalize)
    waves = clips()
    plain = run(model, waves)
    model.freeze_front_end()
    batch = run(model, waves)
    torch.testing.assert_close(
        batch.conv_features_BTC[batch.valid_BT], plain.conv_features_BTC[plain.valid_BT]
    )
    for wave, conv_TC in zip(waves, batch.conv_features_BTC, strict=True):
        (alone_TC,) = run(model, [wave]).conv_features_BTC
        assert torch.equal(conv_TC[: len(alone_TC)], alone_TC)


def test_what_the_convolutions_give_may_be_given() -> None:
    model = build("group")
    model.freeze_front_end()
    waves = clips()
    wave_BN, num_samples_B = pad_waves(waves)
    mask_BT = torch.zeros(len(waves), num_frames(wave_BN.shape[1]), dtype=torch.bool)
    mask_BT[:, 0] = True
    with torch.no_grad():
        heard = model.forward_frames(wave_BN, num_samples_B, mask_BT=mask_BT)
        given = model.forward_frames(heard.conv_features_BTC, num_samples_B, mask_BT=mask_BT)
    assert torch.equal(given.valid_BT, heard.valid_BT)
    assert torch.equal(given.hidden[3], heard.hidden[3])
    with pytest.raises(ValueError, match="49 convolutional frames for a clip of 15000 samples"):
        model.forward_frames(heard.conv_features_BTC, num_samples_B.clamp(max=15_000))


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_checkpointed_gradients_are_computed_again_to_the_same_bits(
    norm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout: the second forward pass must draw what the first one drew."""
    calls: list[HubertAttention] = []
    forward = HubertAttention.forward

    def counted(self: HubertAttention, *args: object, **kwargs: object) -> object:
        calls.append(self)
        return forward(self, *args, **kwargs)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(HubertAttention, "forward", counted)

    def learn(checkpointed: bool) -> tuple[Tensor, dict[str, Tensor], int]:
        model = build(norm).train()
        model.train_mask_embedding(False)
        model.set_dropout(0.2)
        if checkpointed:
            model.checkpoint_activations()
        calls.clear()
        torch.manual_seed(1)
        loss = model.forward_frames(*pad_waves(clips())).hidden[3].square().mean()
        loss.backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        return loss.detach(), gradients, len(calls)

    plain_loss, plain, once = learn(False)
    loss, gradients, twice = learn(True)

    assert (once, twice) == (3, 6), "calls of three layers"
    assert torch.equal(loss, plain_loss)
    assert gradients.keys() == plain.keys()
    assert all(torch.equal(gradients[name], plain[name]) for name in plain)


def test_gradients_do_not_depend_on_the_batch() -> None:
    model = build("group", normalize=True)
    waves = clips([3000, 8000, 5000])

    def gradient(groups: list[list[np.ndarray]]) -> Tensor:
        model.zero_grad()
        for group in groups:
            output = model.forward_frames(*pad_waves(group))
            output.hidden[3][output.valid_BT].pow(3).sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    together, apart = gradient([waves]), gradient([[wave] for wave in waves])
    assert (together - apart).abs().max() < 1e-4 * apart.abs().max()


def test_set_dropout_reaches_every_place_and_the_config() -> None:
    model = build("layer").train()
    model.set_dropout(0.0)
    first, second = (model.forward_frames(*pad_waves(clips())).hidden[3] for _ in range(2))
    assert torch.equal(first, second)
    model.set_dropout(0.3)
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.3}
    attentions = [m for m in model.modules() if isinstance(m, HubertAttention)]
    assert [m.dropout for m in attentions] == [0.3] * 3
    assert model.config.hidden_dropout == model.config.attention_dropout == 0.3
    with pytest.raises(ValueError, match=r"1\.0"):
        model.set_dropout(1.0)


def test_normalisation_is_over_the_clip_alone() -> None:
    waves = clips()
    normalized_BN = normalize_waves(*pad_waves(waves))
    for row_N, wave in zip(normalized_BN, waves, strict=True):
        expected = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
        np.testing.assert_allclose(row_N[: len(wave)], expected, atol=1e-5)
        assert not row_N[len(wave) :].any()


def test_group_norm_is_stock_where_nothing_is_padded_and_float32_inside() -> None:
    x_BCT = torch.randn(3, 8, 50) + 5
    ours, stock = ClipGroupNorm(8, 8), torch.nn.GroupNorm(8, 8)
    assert torch.equal(ours(x_BCT), stock(x_BCT))
    assert torch.equal(ours(x_BCT, [50, 50, 50]), stock(x_BCT))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = ours(x_BCT.bfloat16(), [50, 20, 7])
    assert low.dtype == torch.bfloat16
    for b, n in enumerate([50, 20, 7]):
        expected = stock(x_BCT.bfloat16().float()[b : b + 1, :, :n])[0]
        torch.testing.assert_close(low[b, :, :n].float(), expected, atol=0.02, rtol=0.01)
        assert not low[b, :, n:].any()


def test_bf16_autocast_runs() -> None:
    model = build("group")
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        output = model.forward_frames(*pad_waves(clips([400, 4000])))
    exact = run(model, clips([400, 4000]))
    difference = (output.hidden[3].float() - exact.hidden[3])[exact.valid_BT].abs().mean()
    assert difference < 0.05


def test_a_model_of_bf16_weights_runs() -> None:
    """As DeepSpeed's bf16 mode has it."""
    output = run(build("group", normalize=True).bfloat16(), clips([400, 4000]))
    assert output.hidden[3].dtype == torch.bfloat16
    assert torch.isfinite(output.hidden[3]).all()


def test_random_weights_follow_the_seed_and_leave_the_global_state_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second, other = (build_random("tiny", seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    states = [torch.cat([p.flatten() for p in m.parameters()]) for m in (first, second, other)]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
    assert not first.training
    assert first.config.normalize_waveform is False
    assert build_random("tiny", 0, normalize=True).config.normalize_waveform is True
    with pytest.raises(ModelError, match="tiny, mini, small, base, large"):
        build_random("huge", 0)


@pytest.mark.parametrize(
    ("size", "count"),
    [
        ("tiny", 152_416),
        ("mini", 1_198_656),
        ("small", 10_370_496),
        ("base", 94_371_712),
        ("large", 315_438_720),
    ],
)
def test_named_sizes_have_so_many_parameters(size: str, count: int) -> None:
    with torch.device("meta"):
        hubert = Hubert(HubertConfig.from_dict(dict(NAMED_SIZES[size])))
    assert sum(p.numel() for p in hubert.parameters()) == count


@pytest.mark.parametrize("size", ["tiny", "mini", "base"])
def test_operations_of_a_frame_are_those_that_pytorch_counts(size: str) -> None:
    config = HubertConfig.from_dict(dict(NAMED_SIZES[size]))
    config._attn_implementation = "eager"
    with torch.device("meta"):
        stock = HubertModel(config).eval()
        wave_BN = torch.empty(1, 320 * 2000 + 80)
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        num_frames = stock(wave_BN).last_hidden_state.shape[1]
    expected = Hubert.flops(config, num_frames)
    of_frame = counted.get_total_flops() / num_frames
    assert expected.conv + expected.rest == pytest.approx(of_frame, rel=1e-4)


@pytest.mark.parametrize("size", NAMED_SIZES)
def test_named_sizes_have_huberts_frame_rate(size: str) -> None:
    config = HubertConfig.from_dict(dict(NAMED_SIZES[size]))
    assert config.inputs_to_logits_ratio == 320
    assert config.hidden_size % config.num_attention_heads == 0
    assert config.hidden_size % config.num_conv_pos_embedding_groups == 0


def test_wrong_layers_are_all_named() -> None:
    with pytest.raises(ModelError, match="the-model has no layer 9, -1: it has 3 layers"):
        check_layers(TINY.config, [1, 9, 3, 0, -1], name="the-model")
    with pytest.raises(ModelError, match="has no layer 4"):
        TINY.forward_frames(*pad_waves(clips([400])), want=[4])


def test_other_architectures_are_refused() -> None:
    values = dict(NAMED_SIZES["tiny"])
    with pytest.raises(ModelError, match="every 160 samples"):
        Hubert(HubertConfig.from_dict({**values, "conv_stride": (5, 2, 2, 2, 2, 2, 1)}))
    with pytest.raises(ModelError, match="conv_pos_batch_norm"):
        Hubert(HubertConfig.from_dict({**values, "conv_pos_batch_norm": True}))


def test_wrong_batches_are_refused() -> None:
    with pytest.raises(CorpusError, match="clip 1 has 399 samples"):
        pad_waves(clips([400, 399]))
    with pytest.raises(ValueError, match="no clip"):
        pad_waves([])
    with pytest.raises(ValueError, match="float64"):
        pad_waves([np.zeros(400)])  # pyright: ignore[reportArgumentType]
    wave_BN, num_samples_B = pad_waves(clips([800]))
    with pytest.raises(CorpusError, match="clip 0 has 3 samples"):
        TINY.forward_frames(wave_BN, num_samples_B * 0 + 3)
    with pytest.raises(ValueError, match="801"):
        TINY.forward_frames(wave_BN, num_samples_B + 1)
    with pytest.raises(ValueError, match="mask_BT"):
        TINY.forward_frames(wave_BN, num_samples_B, mask_BT=torch.zeros(1, 9, dtype=torch.bool))


def test_saved_weights_come_back_exactly(tmp_path: Path) -> None:
    model = build("group", normalize=True)
    model.save_pretrained(tmp_path)
    again = Hubert.from_pretrained(tmp_path)
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(a, model.state_dict()[k]) for k, a in again.state_dict().items())
    assert again.config.normalize_waveform is True
    assert any(key.endswith("parametrizations.weight.original0") for key in model.state_dict())
    stock = HubertModel.from_pretrained(tmp_path)
    assert torch.equal(stock.encoder.layer_norm.weight, model.encoder.layer_norm.weight)
