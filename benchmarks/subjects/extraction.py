"""The subjects of ``benchmarks.extract``, each measured once in the process that calls.

Shape suffixes: B recordings, N samples, T frames, D hidden.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

import pyarrow as pa
import torch
from torch import Tensor
from transformers import HubertConfig, HubertModel

from benchmarks.harness.machine import matmul_gflops
from benchmarks.harness.processes import MIB, descendants, peak_bytes
from benchmarks.harness.rounds import rate
from benchmarks.harness.steady import SteadyClock
from benchmarks.inputs.speech import Speech
from gmp_atl_dist import runtime
from gmp_atl_dist.audio import SAMPLE_RATE_HZ, num_frames
from gmp_atl_dist.config import ExtractConfig, StreamWorkersConfig
from gmp_atl_dist.inference.audio_slices import AudioSlices
from gmp_atl_dist.inference.cost import cost_batches
from gmp_atl_dist.inference.extractor import Extractor, ExtractorArgument
from gmp_atl_dist.models.flops import frame_flops
from gmp_atl_dist.models.hubert import Hubert
from gmp_atl_dist.models.packed import PackedHubert
from gmp_atl_dist.stages.extract import forward_argument
from gmp_atl_dist.stages.frame_index import frame_index
from gmp_atl_dist.stages.part_plan import plan_parts
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.training_set import TrainingSet

_PADDED_BATCH = 16
_BATCH_S = 60
_WINDOW_FRAMES = 3000
_CONTEXT_FRAMES = 250
_PART_FRAMES = 5000
_PARTS = 8
"""At least, of the pipeline: a small training set is cut into smaller parts."""
_WARM_UP_PARTS = 2


@dataclass(frozen=True)
class Extraction:
    """What one subject took in one round; bytes are what it wrote."""

    audio_s: float
    wall_s: float
    cpu_s: float
    peak_rss_mib: float
    bytes: int
    matmul_gflops: float
    model_gflop: float

    @property
    def times_real_time(self) -> float:
        return rate(self.audio_s, self.wall_s, "times real time")

    @property
    def audio_s_per_cpu_s(self) -> float:
        return rate(self.audio_s, self.cpu_s, "audio seconds per CPU second")

    @property
    def matmul_share(self) -> float:
        return rate(self.model_gflop, self.wall_s * self.matmul_gflops, "share of the matmul rate")


def extract_once(subject: str, root: str, layer: int, threads: int) -> Extraction:
    """Measure a subject on the speech below ``root``, with ``threads`` cores."""
    speech = Speech.at(root)
    if subject == PIPELINE:
        return _pipeline(speech, layer, threads)
    model, waves = speech.model(), speech.waves()
    with tempfile.TemporaryFile() as out:
        steps = _PASSES[subject](model, layer, waves, out)
        next(steps)  # the first pass, which fills caches and starts threads
        rate_before = matmul_gflops()
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        for _ in steps:
            pass
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
        written = out.seek(0, os.SEEK_END)
    return Extraction(
        audio_s=sum(map(len, waves)) / SAMPLE_RATE_HZ,
        wall_s=wall_s,
        cpu_s=cpu_s,
        peak_rss_mib=peak_bytes() / MIB,
        bytes=written,
        matmul_gflops=(rate_before + matmul_gflops()) / 2,
        model_gflop=sum(_gflop(model.config, len(wave), layer) for wave in waves),
    )


def _stock(model: Hubert, layer: int) -> HubertModel:
    """The model of ``transformers`` with the same weights, stopped after the same layer."""
    config = HubertConfig.from_dict(model.config.to_dict() | {"num_hidden_layers": layer})
    stock = HubertModel(config).eval()
    stock.load_state_dict(model.state_dict(), strict=False)
    return stock


def _append(out: BinaryIO, x_TD: Tensor) -> None:
    out.write(x_TD.numpy().tobytes())


def _one_by_one(model: Hubert, layer: int, waves: list[Tensor], out: BinaryIO) -> Iterator[None]:
    stock = _stock(model, layer)
    with torch.inference_mode():
        stock(waves[0][None])
        yield
        for wave_N in waves:
            _append(out, stock(wave_N[None]).last_hidden_state[0])
    yield


def _padded(model: Hubert, layer: int, waves: list[Tensor], out: BinaryIO) -> Iterator[None]:
    stock = _stock(model, layer)
    with torch.inference_mode():
        stock(waves[0][None])
        yield
        for first in range(0, len(waves), _PADDED_BATCH):
            batch = waves[first : first + _PADDED_BATCH]
            wave_BN = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True)
            lengths = torch.tensor([len(wave) for wave in batch])
            mask_BN = (torch.arange(wave_BN.shape[1]) < lengths[:, None]).long()
            hidden_BTD = stock(wave_BN, attention_mask=mask_BN).last_hidden_state
            for x_TD, wave in zip(hidden_BTD, batch, strict=True):
                _append(out, x_TD[: num_frames(len(wave))])
    yield


def _bare(model: Hubert, layer: int, waves: list[Tensor], out: BinaryIO) -> Iterator[None]:
    packed = PackedHubert(
        model, [layer], window_frames=_WINDOW_FRAMES, context_frames=_CONTEXT_FRAMES
    )
    packed(waves[:1], _WINDOW_FRAMES)
    yield
    lengths = {i: len(wave) for i, wave in enumerate(waves)}
    for batch in cost_batches(lengths, _BATCH_S * SAMPLE_RATE_HZ):
        packed([waves[i] for i in batch], _WINDOW_FRAMES)
    yield


_PASSES: Mapping[str, Callable[[Hubert, int, list[Tensor], BinaryIO], Iterator[None]]] = {
    "one by one": _one_by_one,
    "padded": _padded,
    "bare": _bare,
}
"""Each yields once after its first pass, and at its end."""
PIPELINE = "pipeline"
SUBJECTS = (*_PASSES, PIPELINE)


def _pipeline(speech: Speech, layer: int, threads: int) -> Extraction:
    """From the second part's receipts to the last one's: workers are started once per run."""
    training = TrainingSet(speech.corpus, speech.fold.training_speakers())
    workers = StreamWorkersConfig(workers=1, cpus=threads)
    config = ExtractConfig(layers=(layer,))
    forward = forward_argument(config, speech.backbone, training, (layer,), workers, None)
    key = ArtifactKey("extract", os.urandom(8).hex())
    argument = ExtractorArgument(forward, "none", speech.context.store, key)
    index = frame_index(training)
    tasks = plan_parts(index, part_frames(int(index["num_frames"].to_numpy().sum())))
    reader = partial(AudioSlices, forward.selection)
    rate_before = matmul_gflops()
    clock = SteadyClock(len(tasks), _WARM_UP_PARTS, "parts of the pipeline")
    receipts: list[dict[str, float]] = []
    with speech.context.connection as connection:
        connection.open()
        results = runtime.stream_tasks(
            tasks, reader, Extractor, argument, workers=workers, retries=0
        )
        for result in results:
            receipts += json.loads(result.result) if clock.is_warm else []
            clock.tick()
        peak = max(peak_bytes(process.pid) for process in descendants())
    steady = clock.steady()
    audio_s = sum(receipt["audio_s"] for receipt in receipts)
    return Extraction(
        audio_s=audio_s,
        wall_s=steady.wall_s,
        cpu_s=steady.others_cpu_s,
        peak_rss_mib=peak / MIB,
        bytes=int(sum(receipt["bytes"] for receipt in receipts)),
        matmul_gflops=(rate_before + matmul_gflops()) / 2,
        model_gflop=audio_s * _gflop_per_audio_s(speech, index, layer),
    )


def part_frames(total_frames: int) -> int:
    """Frames of a part, so that there are enough parts after the warm-up."""
    return max(1, min(_PART_FRAMES, total_frames // _PARTS))


def _gflop_per_audio_s(speech: Speech, index: pa.Table, layer: int) -> float:
    config = HubertConfig.from_dict(json.loads(speech.backbone.read_file("config.json")))
    samples = index["num_samples"].to_pylist()
    return sum(_gflop(config, n, layer) for n in samples) / (sum(samples) / SAMPLE_RATE_HZ)


def _gflop(config: HubertConfig, num_samples: int, layer: int) -> float:
    """Arithmetic of HuBERT up to ``layer`` for one recording, 1e9 multiplications and additions."""
    frames = num_frames(num_samples)
    cut = HubertConfig.from_dict(config.to_dict() | {"num_hidden_layers": layer})
    flops = frame_flops(cut, frames)
    return frames * (flops.conv + flops.rest) / 1e9
