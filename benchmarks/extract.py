"""Frame features: ours against a loop over utterances and against plain padded batches.

    python -m benchmarks.extract --corpus ../shared/data/nemo

Subjects, each in a process of its own with the same threads, weights (HuBERT-base size, random), layer
and recordings, one after another in every round:

- ``one by one``: fairseq's way, one utterance a forward pass, appended to a float32 ``.npy``
- ``padded``: ``transformers`` as it comes, batches of 16 in the order of the corpus, padded and masked
- ``bare``: our forward pass alone, nothing stored
- ``pipeline``: ours as it runs: Ray, readers, storage, hashing; from its second to its last part, by
  when Ray's own processes have started

``matmul_share`` is the model's arithmetic over the time taken, as a share of the rate of a 2048-cubed
float32 matrix product in the same process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from benchmarks.speech import FOLD, context_at, prepare

if TYPE_CHECKING:
    import psutil
    from torch import Tensor
    from transformers import HubertConfig, HubertModel

    from gmp_atl_dist.models.hubert import Hubert
    from gmp_atl_dist.records import StoredUtterance
    from gmp_atl_dist.store.artifact import Artifact

SUBJECTS = ("one by one", "padded", "bare", "pipeline")
_LAYER = 9
_PART_FRAMES = 5000
_BATCH = 16
_SKIPPED_PARTS = 2


@dataclass(frozen=True)
class Figures:
    """What one subject took in one round."""

    audio_s: float
    wall_s: float
    cpu_s: float
    peak_rss_mib: float
    bytes: int
    matmul_gflops: float
    model_gflop: float

    @property
    def matmul_share(self) -> float:
        return self.model_gflop / self.wall_s / self.matmul_gflops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", required=True, help="folder of nemo")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--subject", choices=SUBJECTS, help=argparse.SUPPRESS)
    parser.add_argument("--root", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.subject:
        print(json.dumps(asdict(_measure(args.subject, args.corpus, args.root, args.threads))))
        return
    with tempfile.TemporaryDirectory() as root:
        prepare(args.corpus, root, "random:base")
        found = _rounds(args.corpus, root, args.rounds, args.threads)
    _print(found)


def _rounds(corpus: str, root: str, rounds: int, threads: int) -> dict[str, list[Figures]]:
    found: dict[str, list[Figures]] = {subject: [] for subject in SUBJECTS}
    command = [sys.executable, "-m", "benchmarks.extract", "--corpus", corpus, "--root", root]
    for _ in range(rounds):
        for subject in SUBJECTS:
            done = subprocess.run(
                [*command, "--threads", str(threads), "--subject", subject],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise RuntimeError(f"{subject} failed: {(done.stdout + done.stderr)[-2000:]}")
            found[subject].append(Figures(**json.loads(done.stdout.splitlines()[-1])))
    return found


def _print(found: dict[str, list[Figures]]) -> None:
    def middle(subject: str, value: Callable[[Figures], float]) -> float:
        return statistics.median(value(f) for f in found[subject])

    def spread(subject: str, value: Callable[[Figures], float]) -> str:
        values = sorted(value(f) for f in found[subject])
        return f"{statistics.median(values):.3g} ({values[0]:.3g} to {values[-1]:.3g})"

    for subject in SUBJECTS:
        print(
            f"{subject:11} audio s per CPU s {spread(subject, lambda f: f.audio_s / f.cpu_s)}, "
            f"times real time {spread(subject, lambda f: f.audio_s / f.wall_s)}, of the matmul rate "
            f"{spread(subject, lambda f: f.matmul_share)}, peak MiB "
            f"{middle(subject, lambda f: f.peak_rss_mib):.0f}, "
            f"bytes per audio second {middle(subject, lambda f: f.bytes / f.audio_s):.0f}"
        )

    def ratio(other: str, ours: str) -> float:
        """Of speeds, round by round, so that a busy spell meets both."""
        pairs = zip(found[other], found[ours], strict=True)
        return statistics.median((a.wall_s / a.audio_s) / (b.wall_s / b.audio_s) for a, b in pairs)

    figures = {
        "matmul_share": middle("bare", lambda f: f.matmul_share),
        "matmul_share_pipeline": middle("pipeline", lambda f: f.matmul_share),
        "speedup_vs_one_by_one": ratio("one by one", "bare"),
        "speedup_vs_padded": ratio("padded", "bare"),
        "overhead_share": 1 / ratio("bare", "pipeline") - 1,
        "peak_rss_mib": middle("pipeline", lambda f: f.peak_rss_mib),
    }
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


def _measure(subject: str, corpus: str, root: str, threads: int) -> Figures:
    from gmp_atl_dist.device import pin_threads

    pin_threads(threads)
    if subject == "pipeline":
        return _pipeline(corpus, root, threads)
    model, waves = _model_and_waves(corpus, root)
    audio_s = sum(map(len, waves)) / 16_000
    gflop = sum(model_flop(model.config, len(wave), _LAYER) for wave in waves) / 1e9
    with tempfile.TemporaryFile() as out:
        run = {"one by one": _one_by_one, "padded": _padded, "bare": _bare}[subject](
            model, waves, out
        )
        next(run)  # everything once: caches, allocators, threads
        before = _matmul_gflops()
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        for _ in run:
            pass
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
        size = out.seek(0, os.SEEK_END)
    rate = (before + _matmul_gflops()) / 2
    return Figures(audio_s, wall_s, cpu_s, _peak_mib(), size, rate, gflop)


def _model_and_waves(corpus: str, root: str) -> tuple[Hubert, list[Tensor]]:
    import torch

    from gmp_atl_dist.audio import pcm16_to_float
    from gmp_atl_dist.models.source import hubert_from_files
    from gmp_atl_dist.store.readers import AudioReader, read_utterances

    _, ingested, backbone = context_at(corpus, root)
    reader = AudioReader(ingested)
    utterances = FOLD.select(read_utterances(ingested), "train")
    waves = [torch.from_numpy(pcm16_to_float(reader.samples(u))) for u in utterances]
    return hubert_from_files(backbone.read_files()).eval(), waves


def _stock(model: Hubert) -> HubertModel:
    """transformers' own model with the same weights, stopped at the same layer."""
    from transformers import HubertConfig, HubertModel

    config = HubertConfig.from_dict(model.config.to_dict() | {"num_hidden_layers": _LAYER})
    stock = HubertModel(config).eval()
    stock.load_state_dict(model.state_dict(), strict=False)
    return stock


def _append(out: BinaryIO, x: Tensor) -> None:
    out.write(x.numpy().tobytes())


def _one_by_one(model: Hubert, waves: list[Tensor], out: BinaryIO) -> Iterator[None]:
    import torch

    stock = _stock(model)
    with torch.inference_mode():
        stock(waves[0][None])
        yield
        for wave in waves:
            _append(out, stock(wave[None]).last_hidden_state[0])
    yield


def _padded(model: Hubert, waves: list[Tensor], out: BinaryIO) -> Iterator[None]:
    import torch

    from gmp_atl_dist.audio import num_frames

    stock = _stock(model)
    with torch.inference_mode():
        stock(waves[0][None])
        yield
        for first in range(0, len(waves), _BATCH):
            batch = waves[first : first + _BATCH]
            wave_BN = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True)
            lengths = torch.tensor([len(wave) for wave in batch])
            mask_BN = (torch.arange(wave_BN.shape[1]) < lengths[:, None]).long()
            hidden = stock(wave_BN, attention_mask=mask_BN).last_hidden_state
            for x_TD, wave in zip(hidden, batch, strict=True):
                _append(out, x_TD[: num_frames(len(wave))])
    yield


def _bare(model: Hubert, waves: list[Tensor], out: BinaryIO) -> Iterator[None]:
    from gmp_atl_dist.inference.cost import cost_batches
    from gmp_atl_dist.models.packed import PackedHubert

    packed = PackedHubert(model, [_LAYER], window_frames=3000, context_frames=250)
    packed(waves[:1], 3000)
    yield
    for batch in cost_batches({i: len(w) for i, w in enumerate(waves)}, 60 * 16_000):
        packed([waves[i] for i in batch], 3000)
    yield


def _pipeline(corpus: str, root: str, threads: int) -> Figures:
    """From the second part's receipts to the last one's: starting workers is paid once a run."""
    import psutil
    from gmp_atl_dist.stages.training import TrainingSet, plan_parts

    from gmp_atl_dist import runtime
    from gmp_atl_dist.config import ExtractConfig, StreamWorkersConfig
    from gmp_atl_dist.inference.audio_slices import AudioSlices
    from gmp_atl_dist.inference.extractor import Extractor, ExtractorArgument
    from gmp_atl_dist.stages.extract import forward_argument
    from gmp_atl_dist.store.artifact import ArtifactKey
    from gmp_atl_dist.store.readers import read_utterances

    context, ingested, backbone = context_at(corpus, root)
    training = TrainingSet(ingested, FOLD.training_speakers())
    workers = StreamWorkersConfig(workers=1, cpus=threads)
    forward = forward_argument(
        ExtractConfig(layers=(_LAYER,)), backbone, training, (_LAYER,), workers, None
    )
    key = ArtifactKey("extract", os.urandom(8).hex())
    argument = ExtractorArgument(forward, "none", context.store, key)
    tasks = plan_parts(frame_index(training), _PART_FRAMES)
    flop_a_second = _flop_a_second(backbone, read_utterances(ingested))
    started = finished = (0.0, 0.0)
    receipts: list[dict[str, float]] = []
    reader = partial(AudioSlices, forward.heard)
    before = _matmul_gflops()
    with context.cluster as cluster:
        cluster.open()
        for i, result in enumerate(
            runtime.stream_tasks(
                tasks,
                reader,
                Extractor,
                argument,
                workers=workers,
                retries=0,
            )
        ):
            now = (
                time.perf_counter(),
                sum(
                    p.cpu_times().user + p.cpu_times().system
                    for p in psutil.Process().children(recursive=True)
                ),
            )
            started = now if i < _SKIPPED_PARTS else started
            finished = now
            receipts += json.loads(result.result) if i >= _SKIPPED_PARTS else []
        peak = max(_peak_of(p) for p in psutil.Process().children(recursive=True))
    rate = (before + _matmul_gflops()) / 2
    audio_s = sum(r["audio_s"] for r in receipts)
    return Figures(
        audio_s,
        finished[0] - started[0],
        finished[1] - started[1],
        peak,
        int(sum(r["bytes"] for r in receipts)),
        rate,
        audio_s * flop_a_second / 1e9,
    )


def _flop_a_second(backbone: Artifact, utterances: tuple[StoredUtterance, ...]) -> float:
    from transformers import HubertConfig

    config = HubertConfig.from_dict(json.loads(backbone.read_file("config.json")))
    chosen = FOLD.select(utterances, "train")
    total = sum(model_flop(config, u.num_samples, _LAYER) for u in chosen)
    return total / (sum(u.num_samples for u in chosen) / 16_000)


def model_flop(config: HubertConfig, num_samples: int, layers: int) -> float:
    """Multiplications and additions of HuBERT up to ``layers`` for one clip, as it is defined.

    Convolutions are counted as sums over their taps, however they are computed.
    """
    steps, channels, flop = num_samples, 1, 0.0
    for kernel, stride, out in zip(
        config.conv_kernel, config.conv_stride, config.conv_dim, strict=True
    ):
        steps = (steps - kernel) // stride + 1
        flop += 2.0 * kernel * channels * out * steps
        channels = out
    dim, inner = config.hidden_size, config.intermediate_size
    flop += 2.0 * channels * dim * steps
    taps, groups = config.num_conv_pos_embeddings, config.num_conv_pos_embedding_groups
    flop += 2.0 * taps * dim * (dim // groups) * steps
    each = 2.0 * (4 * dim * dim + 2 * dim * inner) * steps + 4.0 * steps * steps * dim
    return flop + layers * each


def _matmul_gflops() -> float:
    import torch

    x = torch.randn(2048, 2048)
    seconds: list[float] = []
    for _ in range(7):
        started_s = time.perf_counter()
        torch.mm(x, x)
        seconds.append(time.perf_counter() - started_s)
    return 2 * 2048**3 / statistics.median(seconds) / 1e9


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _peak_of(process: psutil.Process) -> float:
    """Most memory that a process ever had."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()
