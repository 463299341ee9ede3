"""The model in a replica: batches of clips from any number of requests, exact as if each came alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from gmp_atl_dist import __version__
from gmp_atl_dist.audio import SAMPLE_RATE_HZ, pcm16_to_float
from gmp_atl_dist.device import DeviceChoice, choose_device, pin_threads, torch_device
from gmp_atl_dist.gpu_state import full_memory_named
from gmp_atl_dist.inference.cost import cost_batches
from gmp_atl_dist.inference.predictor import probabilities_of
from gmp_atl_dist.models.stored import load_emotion_model
from gmp_atl_dist.records import Channel
from gmp_atl_dist.serving.clips import ClipJob

_BATCH_SAMPLES = 60 * SAMPLE_RATE_HZ


@dataclass(frozen=True)
class ModelFacts:
    """What a client may know of the model."""

    label: str
    emotions: tuple[str, ...]
    parameters: int
    device: str
    version: str
    channel: Channel
    """What the model was trained on of recordings with several channels."""


@dataclass(frozen=True)
class Computed:
    """Probabilities of each clip of a job, and the batch that it was computed in."""

    probabilities: list[list[float]]
    compute_s: float
    batch_jobs: int
    batch_clips: int
    batch_audio_s: float


class ModelRunner:
    """A loaded model that computes one batch at a time.

    Args:
        uri: folder or URI of a fine-tuned model.
        label: what clients see as its name; it names no path.
        device: auto takes a GPU where there is one.
        threads: cores of this process.

    Raises:
        ModelError: it is not a fine-tuned model, or there is no GPU and ``device`` is cuda.
    """

    def __init__(
        self, uri: str, label: str, device: DeviceChoice = "auto", threads: int = 1
    ) -> None:
        pin_threads(threads)
        choose_device(device)
        self._model = load_emotion_model(uri)
        with full_memory_named("loading the model"):
            nn.Module.to(self._model, torch_device())
        self.facts = ModelFacts(
            label=label,
            emotions=tuple(self._model.config.emotions),
            parameters=sum(p.numel() for p in self._model.parameters()),
            device=next(self._model.parameters()).device.type,
            version=__version__,
            channel=self._model.config.audio_channel,
        )

    def __call__(self, jobs: Sequence[ClipJob]) -> list[Computed]:
        """One result per job, in order. A clip's result does not depend on the other clips."""
        started_s = time.perf_counter()
        clips = [
            (number, pcm16_to_float(job.pcm16[start:stop]))
            for number, job in enumerate(jobs)
            for start, stop in job.spans
        ]
        lengths = {row: len(wave) for row, (_, wave) in enumerate(clips)}
        found: dict[int, list[float]] = {}
        # On a CPU a batch is no faster than its clips, and their padding costs a quarter (benchmarks.serve).
        on_cpu = self.facts.device == "cpu"
        groups = ([row] for row in lengths) if on_cpu else cost_batches(lengths, _BATCH_SAMPLES)
        for rows in groups:
            found.update(
                zip(
                    rows,
                    probabilities_of(self._model, [clips[row][1] for row in rows]),
                    strict=True,
                )
            )
        compute_s = time.perf_counter() - started_s
        by_job: list[list[list[float]]] = [[] for _ in jobs]
        for row, (number, _) in enumerate(clips):
            by_job[number].append(found[row])
        audio_s = sum(lengths.values()) / SAMPLE_RATE_HZ
        return [Computed(p, compute_s, len(jobs), len(clips), audio_s) for p in by_job]
