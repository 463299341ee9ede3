"""The GPU's branch of extraction on this device: the features of the CPU's branch, in few kernels."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.kernels import KernelCounter, speech_like_samples
from test_packed import LAYERS, VARIANTS, build, clips, packed
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import HubertConfig

from gmp_atl_dist import device
from gmp_atl_dist.audio import FRAME_HOP_SAMPLES, num_frames
from gmp_atl_dist.models import packed_attention
from gmp_atl_dist.models.hubert import NAMED_SIZES, Hubert
from gmp_atl_dist.models.packed_attention import PlannedAttention, buckets, each_alone
from gmp_atl_dist.models.packed_slots import SlotHubert
from gmp_atl_dist.models.positional import PositionalConv
from gmp_atl_dist.models.slot_positional import SlotPositionalConv
from gmp_atl_dist.models.slots import HostPlan, SlotLayout
from gmp_atl_dist.transfers import HostLane

torch.set_num_threads(1)


def slots(
    model: Hubert,
    *,
    window_frames: int = 3000,
    context_frames: int = 250,
    half: bool = False,
    flash: bool = False,
) -> SlotHubert:
    return SlotHubert(
        model,
        LAYERS,
        window_frames=window_frames,
        context_frames=context_frames,
        half=half,
        flash=flash,
    )


def flash_kernel(
    q: Tensor, k: Tensor, v: Tensor, ends: Tensor, other: Tensor, longest: int, _: int
) -> Tensor:
    """What ``varlen_attn`` computes. PyTorch has it for GPUs only."""
    assert ends.dtype == torch.int32
    assert torch.equal(ends, other)
    lengths = ends.diff().tolist()
    assert max(lengths) == longest
    pieces = zip(*(x.transpose(0, 1).split(lengths, dim=1) for x in (q, k, v)), strict=True)
    attended = [torch.softmax(a @ b.mT / a.shape[-1] ** 0.5, -1) @ c for a, b, c in pieces]
    return torch.cat(attended, dim=1).transpose(0, 1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_features_as_one_clip_at_a_time(
    variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All lengths and windows, in one pass and in several, in one chunk of convolutions and in many."""
    model, waves = build(**VARIANTS[variant]), clips()
    for window_frames, context_frames in ((3000, 250), (60, 10)):
        windows: dict[str, Any] = {
            "window_frames": window_frames,
            "context_frames": context_frames,
        }
        alone = packed(model, **windows)(waves, 10**6)
        for most_frames, chunk in ((10**6, 10**6), (60, 41)):
            monkeypatch.setattr("gmp_atl_dist.models.slot_conv._CHUNK_SLOTS", chunk)
            monkeypatch.setattr("gmp_atl_dist.models.slot_conv._SUM_SLOTS", chunk)
            together = slots(model, **windows)(waves, most_frames)
            for ours, theirs in zip(together, alone, strict=True):
                for layer in LAYERS:
                    assert ours[layer].shape == theirs[layer].shape
                    assert ours[layer].dtype == torch.float32
                    assert float((ours[layer] - theirs[layer]).abs().max()) < 1e-4


def test_a_pass_with_as_many_rows_and_windows_as_there_are_frames_and_clips() -> None:
    """Two windows of the first clip, which share as many frames as the second clip has."""
    model = build(**VARIANTS["base"])
    extract = slots(model, window_frames=60, context_frames=10)
    waves = clips([FRAME_HOP_SAMPLES * frames + 80 for frames in (80, 20)])
    for found, expected in zip(extract(waves, 100), extract(waves, 10**6), strict=True):
        for layer in LAYERS:
            torch.testing.assert_close(found[layer], expected[layer], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", ["base", "large"])
def test_stored_samples_are_scaled_on_the_device(variant: str) -> None:
    model = slots(build(**VARIANTS[variant]))
    waves = clips()
    layout = SlotLayout(tuple(map(len, waves)))
    pcm16_N = torch.empty(layout.num_samples_N, dtype=torch.int16)
    layout.place([(w.numpy() * 32768).astype(np.int16) for w in waves], pcm16_N.numpy())
    for clip, wave in zip(layout.clips_of(pcm16_N), waves, strict=True):
        assert torch.equal(clip.float() / 32768, wave)
    found = model.frames(pcm16_N, layout, 10**6, HostLane())
    expected = model(waves, 10**6)
    for layer in LAYERS:
        whole_MD = torch.cat([x[layer] for x in expected])
        assert float((found[layer] - whole_MD).abs().max()) < 1e-5


@pytest.mark.parametrize("variant", ["base", "large"])
def test_half_precision_keeps_the_direction_of_every_frame(variant: str) -> None:
    model, waves = build(**VARIANTS[variant]), clips()
    full, half = packed(model)(waves, 10**6), slots(model, half=True)(waves, 10**6)
    for ours, theirs in zip(half, full, strict=True):
        for layer in LAYERS:
            similarity_T = torch.cosine_similarity(ours[layer], theirs[layer], dim=-1)
            assert float(similarity_T.min()) > 0.99


class Types(TorchDispatchMode):
    """Notes the types of all values that are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.seen |= {x.dtype for x in tree_leaves(result) if isinstance(x, Tensor)}
        return result


@pytest.mark.parametrize(("capability", "half"), [((7, 0), False), ((7, 5), False), ((8, 0), True)])
def test_v100_and_t4_extract_in_fp32(
    capability: tuple[int, int], half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where PyTorch would emulate bf16, no value is in half precision, and features are exact."""
    properties = SimpleNamespace(name="Card", major=capability[0], minor=capability[1])
    monkeypatch.setattr(device, "_chosen", ["cuda"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda _: True)
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", flash_kernel)
    model, waves = build(**VARIANTS["base"]), clips([16000, 719, 8043])
    found = SlotHubert(model, LAYERS, window_frames=3000, context_frames=250)
    layout = SlotLayout(tuple(map(len, waves)))
    with Types() as types:
        frames = found.frames(layout.gather(waves), layout, 10**6, HostLane())
    assert (torch.bfloat16 in types.seen, torch.float16 in types.seen) == (half, half)
    exact_MD = torch.cat([x[3] for x in packed(model)(waves, 10**6)])
    assert (float((frames[3] - exact_MD).abs().max()) < 1e-4) == (not half)


@pytest.mark.parametrize("lengths", [[50, 1, 24, 7, 50], [41, 41], [200, 3]])
@pytest.mark.parametrize("flash", [False, True])
def test_attention_of_all_sequences_is_that_of_each_alone(
    lengths: list[int], flash: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_attention, "BUCKET_ROWS", 100)
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", flash_kernel)
    torch.manual_seed(0)
    qkv_MX = torch.randn(sum(lengths), 3 * 32)
    plan = HostPlan()
    attention = PlannedAttention(lengths, plan, dtype=torch.float32, flash=flash)
    attention.receive(plan.send(HostLane()))
    difference = attention(qkv_MX, 4) - each_alone(lengths)(qkv_MX, 4)
    assert float(difference.abs().max()) < 1e-5


def test_buckets_of_speech_hold_little_padding() -> None:
    """One padded call would have three times the frames and nine times the scores."""
    lengths = [num_frames(n) for n in speech_like_samples()]
    found = buckets(lengths, packed_attention.BUCKET_ROWS)
    assert sorted(i for b in found for i in b.sequences) == list(range(len(lengths)))
    padded = sum(len(b.sequences) * b.steps for b in found)
    scores = sum(len(b.sequences) * b.steps**2 for b in found)
    assert padded < 1.2 * sum(lengths)
    assert scores < 1.4 * sum(n * n for n in lengths)
    assert len(lengths) * max(lengths) > 2.5 * sum(lengths)


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.float16, 2e-3)])
def test_positions_in_blocks_of_all_clips(dtype: torch.dtype, most: float) -> None:
    model = build(**VARIANTS["base"])
    torch.manual_seed(0)
    for lengths in ([1], [33], [34, 65, 200, 2]):
        x_MD = torch.randn(sum(lengths), 64)
        plan, conv = HostPlan(), SlotPositionalConv(model, dtype)
        ids = conv.plan(np.array(lengths), plan)
        found = conv(x_MD, ids, plan.send(HostLane()))
        assert found.dtype == torch.float32
        assert float((found - PositionalConv(model)(x_MD, lengths)).abs().max()) < most


@given(lengths=st.lists(st.integers(400, 5000), min_size=1, max_size=12))
def test_every_frame_sees_its_own_clip_only(lengths: list[int]) -> None:
    layout = SlotLayout(tuple(lengths))
    out_N = np.full(layout.num_samples_N, -1, np.int16)
    layout.place([np.full(n, i + 1, np.int16) for i, n in enumerate(lengths)], out_N)
    frames = [(i, t) for i, n in enumerate(lengths) for t in range(num_frames(n))]
    assert len(layout.slot_of_frame_M) == len(frames)
    for (clip, _), slot in zip(frames, layout.slot_of_frame_M.tolist(), strict=True):
        seen = out_N[slot * FRAME_HOP_SAMPLES : slot * FRAME_HOP_SAMPLES + 400]
        assert (seen == clip + 1).all()
        assert layout.clip_of_slot_S[slot] == clip
    assert np.bincount(out_N).tolist() == [len(out_N) - sum(lengths), *lengths]
    steps_S = layout.steps_of_slot_S(10, 5)
    assert np.bincount(layout.clip_of_slot_S, weights=steps_S).tolist() == [
        (n - 10) // 5 + 1 for n in lengths
    ]


def narrow(layers: int, **keys: object) -> Hubert:
    """Of HuBERT's depth, but few channels: the number of kernels depends on the depth only."""
    config = HubertConfig.from_dict(
        dict(NAMED_SIZES["tiny"])
        | {"conv_dim": (4,) * 7, "hidden_size": 8, "intermediate_size": 16}
        | {"num_attention_heads": 1, "num_conv_pos_embedding_groups": 2}
        | {"num_hidden_layers": layers}
        | keys
    )
    return Hubert(config).eval()


LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}


def kernels_of_a_part(model: Hubert, lengths: Sequence[int], *, flash: bool) -> int:
    found = SlotHubert(
        model,
        [model.num_layers],
        window_frames=3000,
        context_frames=250,
        half=True,
        flash=flash,
    )
    layout = SlotLayout(tuple(lengths))
    pcm16_N = torch.randint(-3000, 3000, (layout.num_samples_N,), dtype=torch.int16)
    with KernelCounter() as counter:
        found.frames(pcm16_N, layout, 10**6, HostLane())
    return counter.kernels


@pytest.mark.parametrize(
    ("layers", "keys", "flash", "most"),
    [
        (12, {}, True, 350),
        (12, {}, False, 500),
        pytest.param(24, LARGE, True, 600, marks=pytest.mark.slow),
        pytest.param(24, LARGE, False, 799, marks=pytest.mark.slow),
    ],
    ids=["base", "base, no flash", "large", "large, no flash"],
)
def test_kernels_of_a_part_of_ten_minutes(
    layers: int, keys: dict[str, object], flash: bool, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One clip at a time took 4,900 (base) and 3,900 (large) for the same 134 clips."""
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", lambda q, *_: torch.zeros_like(q))
    found = kernels_of_a_part(narrow(layers, **keys), speech_like_samples(), flash=flash)
    print(f"{found} kernels")
    assert found <= most


def test_more_clips_take_no_more_kernels() -> None:
    model = narrow(2)
    few = kernels_of_a_part(model, [20 * 16000], flash=False)
    many = kernels_of_a_part(model, [16000] * 20, flash=False)
    # One more: of a single clip all frames are one bucket without a gather.
    assert many <= few + 5
