"""Packed features: those of the padded forward pass, and the same bits in every batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import HubertConfig

from gmp_atl_dist.audio import num_frames
from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.models.hubert import NAMED_SIZES, Hubert, pad_waves
from gmp_atl_dist.models.packed import PackedHubert
from gmp_atl_dist.models.packed_slots import SlotHubert
from gmp_atl_dist.models.padding import ClipGroupNorm
from gmp_atl_dist.models.positional import PositionalConv
from gmp_atl_dist.models.windows import windows

torch.set_num_threads(1)

LENGTHS = [16000, 400, 719, 720, 8043, 12345, 15999, 3201, 50123]
LAYERS = (1, 2, 3)


def build(
    norm: str, *, stable: bool, bias: bool, normalize: bool = False, **keys: object
) -> Hubert:
    config = HubertConfig.from_dict(dict(NAMED_SIZES["tiny"]) | keys)
    config.feat_extract_norm = norm
    config.do_stable_layer_norm = stable
    config.conv_bias = bias
    setattr(config, "normalize_waveform", normalize)  # noqa: B010
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = Hubert(config).eval()
        first = model.feature_extractor.conv_layers[0]
        if isinstance(first.layer_norm, ClipGroupNorm):
            # Random weights start with a norm that does nothing to scale and offset.
            torch.nn.init.uniform_(first.layer_norm.weight, 0.5, 2.0)
            torch.nn.init.normal_(first.layer_norm.bias)
    return model


def clips(lengths: Sequence[int] = LENGTHS) -> list[torch.Tensor]:
    """Of 16 bits, as stored, with a level and an offset of their own."""
    rng = np.random.default_rng(1)
    return [
        torch.from_numpy(
            (np.rint(300 * (i + 1) * rng.standard_normal(n) + 100 * i) / 32768).astype(np.float32)
        )
        for i, n in enumerate(lengths)
    ]


def packed(model: Hubert, *, window_frames: int = 3000, context_frames: int = 250) -> PackedHubert:
    return PackedHubert(model, LAYERS, window_frames=window_frames, context_frames=context_frames)


@torch.no_grad()
def padded(model: Hubert, waves: Sequence[torch.Tensor]) -> list[dict[int, torch.Tensor]]:
    output = model.forward_frames(*pad_waves([w.numpy() for w in waves]), want=LAYERS)
    return [
        {layer: output.hidden[layer][b, : num_frames(len(w))] for layer in LAYERS}
        for b, w in enumerate(waves)
    ]


VARIANTS: dict[str, Any] = {
    "base": {"norm": "group", "stable": False, "bias": False},
    "large": {"norm": "layer", "stable": True, "bias": True},
    "group norm with bias": {"norm": "group", "stable": True, "bias": True, "normalize": True},
    "other strides": {
        "norm": "layer",
        "stable": False,
        "bias": False,
        "conv_kernel": (10, 11, 2, 3, 4),
        "conv_stride": (5, 4, 2, 2, 4),
        "conv_dim": (32, 24, 16, 24, 40),
        "num_feat_extract_layers": 5,
    },
    "odd taps, another activation": {
        "norm": "group",
        "stable": False,
        "bias": False,
        "num_conv_pos_embeddings": 31,
        "hidden_act": "relu",
        "feat_extract_activation": "silu",
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_equal_to_the_padded_forward_pass(variant: str) -> None:
    model = build(**VARIANTS[variant])
    waves = clips()
    worst = 0.0
    for ours, theirs in zip(packed(model)(waves, 10**6), padded(model, waves), strict=True):
        for layer in LAYERS:
            assert ours[layer].shape == theirs[layer].shape
            assert ours[layer].dtype == torch.float32
            worst = max(worst, float((ours[layer] - theirs[layer]).abs().max()))
    print(f"{variant}: worst difference {worst:.1e}")
    assert worst < 1e-4


@pytest.mark.parametrize("variant", ["base", "large"])
def test_a_clip_has_the_same_bits_in_every_batch(variant: str) -> None:
    model = packed(build(**VARIANTS[variant]))
    waves = clips()
    together = model(waves, 10**6)
    for name, batches, most in (
        ("alone", [[i] for i in range(len(waves))], 10**6),
        ("in threes", [[0, 4, 8], [1, 2, 3], [5, 6, 7]], 10**6),
        ("backwards, in small passes", [list(range(len(waves)))[::-1]], 60),
    ):
        for batch in batches:
            for i, found in zip(batch, model([waves[i] for i in batch], most), strict=True):
                for layer in LAYERS:
                    assert torch.equal(found[layer], together[i][layer]), (name, i, layer)


def test_threads_do_not_change_the_bits() -> None:
    model = build(**VARIANTS["base"])
    waves = clips()
    one = packed(model)(waves, 10**6)
    torch.set_num_threads(2)
    try:
        two = packed(model)(waves, 10**6)
    finally:
        torch.set_num_threads(1)
    assert all(
        torch.equal(a[layer], b[layer]) for a, b in zip(one, two, strict=True) for layer in LAYERS
    )


def test_windows_change_what_attention_sees_and_nothing_else() -> None:
    model = build(**VARIANTS["base"])
    waves = clips([16000 * 6, 16000])
    whole, cut = (
        packed(model)(waves, 10**6),
        packed(model, window_frames=120, context_frames=30)(waves, 10**6),
    )
    for layer in LAYERS:
        assert torch.equal(cut[1][layer], whole[1][layer])
        assert cut[0][layer].shape == whole[0][layer].shape == (num_frames(96000), 64)
    # Each frame is nearest to itself in the other: nothing is shifted where windows meet.
    distances_TT = torch.cdist(cut[0][1], whole[0][1])
    assert torch.equal(distances_TT.argmin(1), torch.arange(len(distances_TT)))


def test_a_layer_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ModelError, match="no layer 4"):
        PackedHubert(build(**VARIANTS["base"]), [4], window_frames=100, context_frames=10)


def test_positions_of_one_clip_follow_the_stock_convolution() -> None:
    model = build(**VARIANTS["base"])
    torch.manual_seed(0)
    for lengths in ([1], [33], [34, 65, 200, 2]):
        x_MD = torch.randn(sum(lengths), 64)
        found = PositionalConv(model)(x_MD, lengths).split(lengths)
        for ours, x_TD in zip(found, x_MD.split(lengths), strict=True):
            with torch.no_grad():
                theirs = model.encoder.pos_conv_embed(x_TD[None])[0]
            assert float((ours - theirs).abs().max()) < 1e-5


@given(total=st.integers(1, 5000), most=st.integers(1, 400), context=st.integers(0, 100))
def test_windows_keep_every_frame_once(total: int, most: int, context: int) -> None:
    if most <= 2 * context:
        with pytest.raises(ValueError, match="no room"):
            windows(total, most, context)
        return
    found = windows(total, most, context)
    assert [t for w in found for t in range(w.keep_start, w.keep_stop)] == list(range(total))
    for w in found:
        assert 0 <= w.start <= w.keep_start < w.keep_stop <= w.stop <= total
        assert w.stop - w.start <= most
        assert w.start == 0 or w.keep_start - w.start == context
        assert w.stop == total or w.stop - w.keep_stop == context


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("variant", ["base", "large"])
def test_a_gpu_agrees_with_a_cpu(variant: str) -> None:
    """bf16 products against fp32 ones: the same direction, frame by frame."""
    model = build(**VARIANTS[variant])
    waves = clips()
    on_cpu = packed(model)(waves, 10**6)
    torch.nn.Module.to(model, "cuda")
    found = model.frame_model(LAYERS, window_frames=3000, context_frames=250)
    assert isinstance(found, SlotHubert)
    on_gpu = found([wave.cuda() for wave in waves], 10**6)
    for ours, theirs in zip(on_gpu, on_cpu, strict=True):
        for layer in LAYERS:
            similarity_T = torch.cosine_similarity(ours[layer].cpu(), theirs[layer], dim=-1)
            assert float(similarity_T.min()) > 0.99
