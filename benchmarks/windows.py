"""How far features of a long recording in windows are from those of one pass over all of it.

    python -m benchmarks.windows --corpus ../shared/data/nemo

Recordings of one speaker are joined to one of some minutes. HuBERT-base size, random weights: with
weights that were trained attention looks further, or less far, so measure those that you use.
"""

from __future__ import annotations

import argparse
import json
import tempfile

import numpy as np
import torch

from benchmarks.speech import FOLD, context_at, prepare
from gmp_atl_dist.audio import pcm16_to_float
from gmp_atl_dist.clustering.assignment import Assigner
from gmp_atl_dist.clustering.assignment_step import fit_in_memory
from gmp_atl_dist.clustering.lloyd import Fit
from gmp_atl_dist.models.hubert import Hubert
from gmp_atl_dist.models.packed import PackedHubert
from gmp_atl_dist.models.source import hubert_from_files
from gmp_atl_dist.store.readers import AudioReader, read_utterances

_LAYERS = (6, 9, 12)
_FRAMES_A_SECOND = 50
_CLUSTERS = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", required=True, help="folder of nemo")
    parser.add_argument("--minutes", type=float, default=4.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        prepare(args.corpus, root, "random:base")
        _, ingested, backbone = context_at(args.corpus, root)
        model = hubert_from_files(backbone.read_files()).eval()
        reader = AudioReader(ingested)
        chosen = FOLD.select(read_utterances(ingested), "train")
        wave = np.concatenate([pcm16_to_float(reader.samples(u)) for u in chosen])
    wave_N = torch.from_numpy(wave[: int(args.minutes * 60 * 16_000)])
    whole = _features(model, wave_N, 10**6, 0)
    codebooks = {layer: Assigner(_codebook(whole[layer])) for layer in _LAYERS}
    figures: dict[str, float] = {}
    for window_s, context_s in ((60, 5), (30, 5), (30, 0), (15, 2)):
        cut = _features(model, wave_N, window_s * _FRAMES_A_SECOND, context_s * _FRAMES_A_SECOND)
        for layer in _LAYERS:
            difference = np.abs(cut[layer] - whole[layer])
            scale = np.abs(whole[layer]).mean()
            equal = codebooks[layer].assign(cut[layer]) == codebooks[layer].assign(whole[layer])
            print(
                f"windows of {window_s} s with {context_s} s of context, layer {layer:2}: mean "
                f"{difference.mean() / scale:.4f}, worst {difference.max() / scale:.3f} of the mean "
                f"magnitude; {100 * equal.mean():.2f} % of labels equal at k = {_CLUSTERS}"
            )
            figures[f"labels_equal_{window_s}s_{context_s}s_layer{layer}"] = round(equal.mean(), 4)
    print(json.dumps(figures))


def _codebook(x_MD: np.ndarray) -> np.ndarray:
    (state,) = fit_in_memory([Fit("whole", _CLUSTERS, seed=0, iterations=10)], {"all": x_MD})
    return state.centroids_KD


def _features(
    model: Hubert, wave_N: torch.Tensor, window: int, context: int
) -> dict[int, np.ndarray]:
    packed = PackedHubert(model, _LAYERS, window_frames=window, context_frames=context)
    (found,) = packed([wave_N], 3000)
    return {layer: x_TD.numpy() for layer, x_TD in found.items()}


if __name__ == "__main__":
    main()
