"""Part 5: the convolutional encoder beside cuDNN's, and attention beside PyTorch's own, each alone.

Shape suffixes: B recordings, N samples, T frames, M frames of all recordings, D hidden, H heads.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import HubertModel

from benchmarks.harness.gpu import Place, seconds_of
from benchmarks.harness.parts import Rows
from benchmarks.inputs.spoken import hubert, recordings
from benchmarks.subjects.gpu_frames import CONTEXT_FRAMES, WINDOW_FRAMES, hubert_config
from gmp_atl_dist.audio import num_frames, pcm16_to_float
from gmp_atl_dist.device import autocast, use_bf16
from gmp_atl_dist.models.hubert import Hubert

_MS = 1000


def measure(place: Place, rows: Rows) -> None:
    """Of a batch with lengths of IEMOCAP; times without reading and without copies from the CPU."""
    device = place.choose()
    size, audio_s = ("base", 300.0) if place.on_gpu else ("tiny", 8.0)
    table = recordings("iemocap", audio_s)
    waves = [wave.to(device) for wave in _waves(table)]
    lengths = [num_frames(len(wave)) for wave in waves]
    rounds = 7 if place.on_gpu else 3
    model = hubert(size)
    torch.nn.Module.to(model, device)

    def seconds(call: Callable[[], object]) -> float:
        with torch.inference_mode():
            return seconds_of(call, device, rounds=rounds)

    below_s = _ours(model, 0, waves, seconds)
    last = int(model.config.num_hidden_layers)
    all_s = _ours(model, last, waves, seconds)
    rows.add("ours, all below the first layer", _MS * below_s, "ms", note=f"{audio_s:g} s of audio")
    stock = HubertModel(model.config).eval()
    torch.nn.Module.to(stock, device)
    wave_BN = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    of_cudnn = {
        "padded": seconds(lambda: _embed(stock, wave_BN)),
        "one by one": seconds(lambda: [_embed(stock, wave[None]) for wave in waves]),
    }
    for name, taken in of_cudnn.items():
        rows.add(f"the library's convolutions ({name}), same outputs", _MS * taken, "ms")
    rows.add(
        "below the first layer: the library's time over ours",
        min(of_cudnn.values()) / below_s,
        key="conv_vs_library",
        note="above 1: ours is faster than the better one",
    )
    layer_s = (all_s - below_s) / last
    products_s = seconds(_products(size, sum(lengths), device))
    rows.add("ours, one layer of the encoder", _MS * layer_s, "ms")
    rows.add("its four products alone", _MS * products_s, "ms")
    for name, attend in _attentions(size, lengths, device).items():
        what = f"attention of one layer, {name}"
        try:
            rows.add(what, _MS * seconds(attend), "ms")
        except (RuntimeError, NotImplementedError) as e:  # not every card has every kernel
            rows.add(what, None, note=str(e).splitlines()[0][:200])
    rows.add(
        "one layer: its products over all of it",
        products_s / layer_s if layer_s > 0 else None,
        key="layer_products_share",
        note="the rest is attention, norms, activation and launches"
        if layer_s > 0
        else "too short to measure on a busy machine",
    )


def _waves(table: pa.Table) -> list[Tensor]:
    return [
        torch.from_numpy(pcm16_to_float(np.frombuffer(pcm16, "<i2")))
        for pcm16 in table["pcm16"].to_pylist()
    ]


def _ours(
    model: Hubert, layer: int, waves: list[Tensor], seconds: Callable[[Callable[[], object]], float]
) -> float:
    frames = model.frame_model([layer], window_frames=WINDOW_FRAMES, context_frames=CONTEXT_FRAMES)
    return seconds(lambda: frames(waves, 10**6))


def _embed(stock: HubertModel, wave_BN: Tensor) -> Tensor:
    """The stock model below its first layer, as transformers computes it."""
    with autocast():
        features_BCT = stock.feature_extractor(wave_BN)
        hidden_BTD = stock.feature_projection(features_BCT.transpose(1, 2))
        return hidden_BTD + stock.encoder.pos_conv_embed(hidden_BTD)


def _dtype() -> torch.dtype:
    return torch.bfloat16 if use_bf16() else torch.float32


def _products(size: str, frames: int, device: torch.device) -> Callable[[], object]:
    config = hubert_config(size)
    wide, inner, dtype = config.hidden_size, config.intermediate_size, _dtype()
    shapes = ((wide, 3 * wide), (wide, wide), (wide, inner), (inner, wide))
    pairs = [
        (
            torch.randn(frames, i, device=device, dtype=dtype),
            torch.randn(i, o, device=device, dtype=dtype),
        )
        for i, o in shapes
    ]
    return lambda: [x @ weight for x, weight in pairs]


def _attentions(
    size: str, lengths: list[int], device: torch.device
) -> dict[str, Callable[[], object]]:
    """PyTorch's own, for recordings of so many frames."""
    config = hubert_config(size)
    heads = config.num_attention_heads
    width, dtype = config.hidden_size // heads, _dtype()

    def qkv(batch: int, steps: int) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = torch.randn(3, batch, heads, steps, width, device=device, dtype=dtype)
        return q, k, v

    longest, mean = max(lengths), sum(lengths) // len(lengths)
    padded, equal = qkv(len(lengths), longest), qkv(len(lengths), mean)
    singles = [qkv(1, length) for length in lengths]
    steps_T = torch.arange(longest, device=device)
    valid_BT = steps_T < torch.tensor(lengths, device=device)[:, None]
    mask = valid_BT[:, None, None]
    found: dict[str, Callable[[], object]] = {
        "SDPA, padded to the longest, with a mask": lambda: F.scaled_dot_product_attention(
            *padded, attn_mask=mask
        ),
        "SDPA, one recording after another": lambda: [
            F.scaled_dot_product_attention(*single) for single in singles
        ],
        "SDPA, were all as long as the mean": lambda: F.scaled_dot_product_attention(*equal),
    }
    if device.type == "cuda":
        try:
            from torch.nn.attention.varlen import varlen_attn
        except ImportError:
            return found
        packed = torch.randn(3, sum(lengths), heads, width, device=device, dtype=dtype)
        ends = torch.tensor([0, *np.cumsum(lengths)], device=device, dtype=torch.int32)
        found["variable length over packed rows"] = lambda: varlen_attn(
            packed[0], packed[1], packed[2], ends, ends, longest, longest
        )
    return found
