"""Loads the audio of an update: its batches, cut into micro-batches, with crops that follow from the seed.

A batch is cut into micro-batches independently of the number of workers, and each rank takes some of them.
So every forward pass, with its crops, masks and dropout, is the same for any number of workers; only the
order in which gradients are added up differs.

Shape suffixes: B utterances, N samples, T frames, C channels of the convolutional encoder.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from gmp_atl_dist.audio import FRAME_HOP_SAMPLES, SAMPLE_RATE_HZ, num_frames, pcm16_to_float
from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.models.padding import pad_waves
from gmp_atl_dist.seeding import keyed_rng
from gmp_atl_dist.store.frontend import FrontendReader
from gmp_atl_dist.store.index import IndexRow
from gmp_atl_dist.store.readers import AudioReader
from gmp_atl_dist.training.batch_plan import UpdatePlan

_UPDATES_AHEAD = 4


@dataclass(frozen=True)
class Batch:
    """The input of one forward pass. A rank without a share has one row of weight 0, which counts nothing.

    ``micro`` is its number among the micro-batches of update ``step``. ``first_frames`` says where a
    cropped utterance was cut: its frame 0 is that frame of the uncropped utterance. ``conv_BTC`` is the
    output of a frozen convolutional encoder; with it, ``wave_BN`` has no samples. ``joined`` micro-batches
    are in this pass, and ``micro`` is the first of them.
    """

    step: int
    epoch: int
    micro: int
    utterances: tuple[IndexRow, ...]
    first_frames: tuple[int, ...]
    wave_BN: torch.Tensor
    num_samples_B: torch.Tensor
    weight_B: torch.Tensor
    conv_BTC: torch.Tensor | None = None
    joined: int = 1

    @property
    def model_input(self) -> torch.Tensor:
        """Waves (B, N), or outputs of the frozen convolutional encoder (B, T, C)."""
        return self.wave_BN if self.conv_BTC is None else self.conv_BTC

    def to(self, device: torch.device) -> Batch:
        return Batch(
            self.step,
            self.epoch,
            self.micro,
            self.utterances,
            self.first_frames,
            self.wave_BN.to(device, non_blocking=True),
            self.num_samples_B,  # the model reads lengths on the host
            self.weight_B,  # and weights, to send them with what depends on them
            None if self.conv_BTC is None else self.conv_BTC.to(device, non_blocking=True),
            self.joined,
        )


class BatchLoader:
    """The micro-batches of one rank, read some updates ahead. A pass has one, or several after :meth:`join`.

    Args:
        rows: returns the utterances with the given numbers of the plan.
        frontend: read instead of audio; only allowed if no utterance is longer than ``max_samples``.
    """

    def __init__(
        self,
        plan: UpdatePlan,
        rows: Callable[[Sequence[int] | np.ndarray], tuple[IndexRow, ...]],
        reader: AudioReader,
        *,
        rank: int,
        world_size: int,
        micro_batches: int,
        max_samples: int,
        seed: int,
        frontend: FrontendReader | None = None,
    ) -> None:
        self._plan = plan
        self._frontend = frontend
        self._rows = rows
        self._reader = reader
        self._rank = rank
        self._world_size = world_size
        self.micro_batches = micro_batches
        self._own = -(-micro_batches // world_size)
        self._joined = 1
        self._max_samples = max_samples
        self._seed = seed

    @property
    def passes(self) -> int:
        """Forward passes of an update, the same on every rank."""
        return -(-self._own // self._joined)

    @property
    def micro_s(self) -> float:
        """Seconds of audio of a micro-batch, on average."""
        return self._plan.update_samples / self.micro_batches / SAMPLE_RATE_HZ

    def join(self, pass_s: float) -> None:
        """Let a pass have several micro-batches, as many as have ``pass_s`` seconds of audio on average.

        The passes of an update have equal numbers of them, as far as these divide. 0: one each.
        """
        at_most = max(1, int(pass_s / self.micro_s))
        self._joined = -(-self._own // -(-self._own // at_most))

    def longest(self, joined: int) -> Batch:
        """The last ``joined`` micro-batches of update 0 in one pass. They have its longest clips."""
        cut = self._plan.micro_batches(0, self.micro_batches)[-joined:]
        return self._collate(0, 0, np.concatenate(cut), 1.0, joined)

    def updates(self, first: int, end: int) -> Iterator[tuple[int, list[Batch]]]:
        """(update, this rank's micro-batches) for updates ``first`` to ``end`` - 1."""
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            ahead: deque[Future[list[Batch]]] = deque()
            try:
                for step in range(first, end):
                    while step + len(ahead) < min(end, step + _UPDATES_AHEAD):
                        ahead.append(pool.submit(self._load, step + len(ahead)))
                    yield step, ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()

    def validation_batch(self, utterances: Sequence[IndexRow]) -> Batch:
        """Whole utterances, not cropped, each with weight 1."""
        if self._frontend is not None:
            return self._stored(self._frontend, 0, 0, tuple(utterances), 1.0)
        waves = [pcm16_to_float(self._reader.samples(u)) for u in utterances]
        wave_BN, num_samples_B = pad_waves(waves)
        weight_B = torch.ones(len(waves))
        return Batch(
            0, 0, 0, tuple(utterances), (0,) * len(waves), wave_BN, num_samples_B, weight_B
        )

    def _load(self, step: int) -> list[Batch]:
        cut = self._plan.micro_batches(step, self.micro_batches)
        shortest = self._plan.batch(step)[:1]
        batches: list[Batch] = []
        for i in range(0, self._own, self._joined):
            held = range(i, min(i + self._joined, self._own))
            micros = [k * self._world_size + self._rank for k in held]
            pieces = [cut[m] for m in micros if m < len(cut)]
            mine = np.concatenate([shortest[:0], *pieces])
            # A rank may have no share in a pass. It still takes part in the update.
            weight = 1.0 if len(mine) else 0.0
            numbers = mine if len(mine) else shortest
            joined = max(1, len(pieces))
            batches.append(self._collate(step, micros[0], numbers, weight, joined))
        return batches

    def _collate(
        self, step: int, micro: int, numbers: np.ndarray, weight: float, joined: int
    ) -> Batch:
        epoch = self._plan.epoch(step)
        utterances = self._rows(numbers)
        if self._frontend is not None:
            return self._stored(self._frontend, step, micro, utterances, weight, joined)
        waves: list[np.ndarray] = []
        first_frames: list[int] = []
        for utterance in utterances:
            first, wave = self._crop(epoch, utterance)
            first_frames.append(first)
            waves.append(wave)
        wave_BN, num_samples_B = pad_waves(waves)
        return Batch(
            step,
            epoch,
            micro,
            utterances,
            tuple(first_frames),
            wave_BN,
            num_samples_B,
            torch.full((len(waves),), weight),
            joined=joined,
        )

    def _stored(
        self,
        frontend: FrontendReader,
        step: int,
        micro: int,
        utterances: tuple[IndexRow, ...],
        weight: float,
        joined: int = 1,
    ) -> Batch:
        """A batch of stored outputs of the convolutional encoder, of whole utterances."""
        clips = [frontend.frames(utterance) for utterance in utterances]
        lengths = [num_frames(utterance.num_samples) for utterance in utterances]
        for utterance, clip_TC, length in zip(utterances, clips, lengths, strict=True):
            if len(clip_TC) != length:
                raise ArtifactError(
                    f"utterance {utterance.utterance_id!r}: {len(clip_TC)} stored frames of the "
                    f"convolutional encoder, expected {length}; run gmp-atl verify"
                )
        conv_BTC = np.zeros((len(clips), max(lengths), clips[0].shape[1]), np.float32)
        for row_TC, clip_TC in zip(conv_BTC, clips, strict=True):
            row_TC[: len(clip_TC)] = clip_TC
        return Batch(
            step,
            self._plan.epoch(step),
            micro,
            utterances,
            (0,) * len(clips),
            torch.zeros(len(clips), 0),
            torch.tensor([utterance.num_samples for utterance in utterances]),
            torch.full((len(clips),), weight),
            torch.from_numpy(conv_BTC),
            joined,
        )

    def _crop(self, epoch: int, utterance: IndexRow) -> tuple[int, np.ndarray]:
        """A random segment of at most ``max_samples``, which starts at a frame's border."""
        samples = self._reader.samples(utterance)
        spare_frames = (len(samples) - self._max_samples) // FRAME_HOP_SAMPLES
        if spare_frames <= 0:
            return 0, pcm16_to_float(samples[: max(self._max_samples, 0)])
        rng = keyed_rng("crop", self._seed, epoch, utterance.utterance_id)
        first = int(rng.integers(0, spare_frames + 1))
        start = first * FRAME_HOP_SAMPLES
        return first, pcm16_to_float(samples[start : start + self._max_samples])


def max_crop_samples(seconds: float) -> int:
    return int(seconds * SAMPLE_RATE_HZ)
