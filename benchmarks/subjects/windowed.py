"""The subject of ``benchmarks.windows``: features of one recording, in one pass and in windows.

Shape suffixes: N samples, T frames, D hidden, K clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.harness.rounds import MeasurementError
from benchmarks.inputs.speech import Speech
from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.clustering.assignment import make_assigner, nearest_ids
from gmp_atl_dist.clustering.assignment_step import fit_in_memory
from gmp_atl_dist.clustering.state import Fit
from gmp_atl_dist.models.hubert import Hubert
from gmp_atl_dist.models.packed import PackedHubert

_FRAMES_PER_S = 50
_ONE_PASS_FRAMES = 10**6
_MOST_FRAMES = 3000


@dataclass(frozen=True)
class Windowed:
    """How far one layer in windows is from one pass; differences over the layer's mean magnitude."""

    window_s: int
    context_s: int
    layer: int
    mean_difference: float
    worst_difference: float
    labels_equal: float


def compare_windows(
    root: str,
    minutes: float,
    layers: Sequence[int],
    windows: Sequence[tuple[int, int]],
    clusters: int,
) -> list[Windowed]:
    """Each of ``windows`` (seconds, seconds of context) against one pass, layer by layer.

    Raises:
        MeasurementError: the joined recording fits into a window, so that nothing is compared.
    """
    speech = Speech.at(root)
    wave_N = torch.cat(speech.waves())[: int(minutes * 60 * SAMPLE_RATE_HZ)]
    longest_s = max(window_s for window_s, _ in windows)
    if len(wave_N) <= longest_s * SAMPLE_RATE_HZ:
        raise MeasurementError(
            f"the joined recording has {len(wave_N) / SAMPLE_RATE_HZ:.0f} s, no more than a window of "
            f"{longest_s} s; raise --minutes and --recordings, or give a larger --corpus"
        )
    model = speech.model()
    one_pass = _features(model, wave_N, layers, _ONE_PASS_FRAMES, 0)
    codebooks = {
        layer: make_assigner(_codebook(x_TD, clusters)) for layer, x_TD in one_pass.items()
    }
    compared: list[Windowed] = []
    for window_s, context_s in windows:
        frames = (window_s * _FRAMES_PER_S, context_s * _FRAMES_PER_S)
        windowed = _features(model, wave_N, layers, *frames)
        for layer in layers:
            difference = np.abs(windowed[layer] - one_pass[layer])
            scale = np.abs(one_pass[layer]).mean()
            book = codebooks[layer]
            equal = nearest_ids(book, windowed[layer]) == nearest_ids(book, one_pass[layer])
            compared.append(
                Windowed(
                    window_s,
                    context_s,
                    layer,
                    float(difference.mean() / scale),
                    float(difference.max() / scale),
                    float(equal.mean()),
                )
            )
    return compared


def _codebook(x_TD: np.ndarray, clusters: int) -> np.ndarray:
    (state,) = fit_in_memory([Fit("windows", clusters, seed=0, iterations=10)], {"all": x_TD})
    return state.centroids_KD


def _features(
    model: Hubert, wave_N: torch.Tensor, layers: Sequence[int], window: int, context: int
) -> dict[int, np.ndarray]:
    packed = PackedHubert(model, layers, window_frames=window, context_frames=context)
    (features,) = packed([wave_N], _MOST_FRAMES)
    return {layer: x_TD.numpy() for layer, x_TD in features.items()}
