"""Which utterances make up update ``n``: a pure function of the data, the seed, and ``n``.

Parts are read in a shuffled order, a window of them at a time, so that a corpus larger than memory is
read front to back once an epoch. Within a window utterances are shuffled and grouped by length. A batch
is cut into micro-batches whatever the number of workers, and a rank takes some of them. So every
forward pass, with its crops, masks and dropout, is the same for any number of workers, and only the
order in which gradients are added up differs. A stopped run goes on at any update without reading what
came before it.

Shape suffixes: B utterances, N samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from gmp_atl_dist.audio import FRAME_HOP_SAMPLES, SAMPLE_RATE_HZ, pcm16_to_float
from gmp_atl_dist.models.padding import pad_waves
from gmp_atl_dist.records import StoredUtterance
from gmp_atl_dist.seeding import keyed_rng
from gmp_atl_dist.store.readers import AudioReader

_WINDOW_UTTERANCES = 20_000
_BATCHES_A_BUCKET = 8


class BatchPlan:
    """Batches of utterance indices; every utterance once an epoch, one batch of it may be short."""

    def __init__(self, utterances: Sequence[StoredUtterance], batch_size: int, seed: int) -> None:
        self._utterances = utterances
        self._batch_size = batch_size
        self._seed = seed
        self.batches_per_epoch = -(-len(utterances) // batch_size)
        self._epoch = lru_cache(maxsize=2)(self._plan_epoch)

    def batch(self, step: int) -> tuple[int, ...]:
        """Indices into the utterances for update ``step``, counted from 0."""
        return self._epoch(self.epoch(step))[step % self.batches_per_epoch]

    def epoch(self, step: int) -> int:
        """Of update ``step``, both counted from 0."""
        return step // self.batches_per_epoch

    def _plan_epoch(self, epoch: int) -> tuple[tuple[int, ...], ...]:
        rng = keyed_rng("order", self._seed, epoch)
        by_part: dict[str, list[int]] = {}
        for i, utterance in enumerate(self._utterances):
            by_part.setdefault(utterance.part, []).append(i)
        parts = sorted(by_part)
        batches: list[tuple[int, ...]] = []
        window: list[int] = []
        for n, part in enumerate(rng.permutation(len(parts))):
            window += by_part[parts[part]]
            last = n == len(parts) - 1
            if len(window) < _WINDOW_UTTERANCES and not last:
                continue
            # All but the epoch's last window leave their short batch to the next one.
            keep = 0 if last else len(window) % self._batch_size
            order = [window[i] for i in rng.permutation(len(window))]
            window = order[len(order) - keep :]
            batches += self._cut(order[: len(order) - keep], rng)
        return tuple(batches)

    def _cut(self, order: list[int], rng: np.random.Generator) -> list[tuple[int, ...]]:
        """Batches of similar lengths, in random order. A short batch can only be the window's last."""
        size = self._batch_size
        bucket = size * _BATCHES_A_BUCKET
        for start in range(0, len(order), bucket):
            # The id breaks ties, so that equal lengths do not depend on the order of rows.
            order[start : start + bucket] = sorted(
                order[start : start + bucket],
                key=lambda i: (
                    self._utterances[i].num_samples,
                    self._utterances[i].utterance_id,
                ),
            )
        batches = [tuple(order[start : start + size]) for start in range(0, len(order), size)]
        return [batches[i] for i in rng.permutation(len(batches))]


@dataclass(frozen=True)
class Batch:
    """What one forward pass sees. A row of weight 0 stands where a rank has none, and counts for nothing.

    ``micro`` is its number among the micro-batches of update ``step``. ``first_frames`` says where a
    cropped utterance was cut: its frame 0 is that frame of the whole.
    """

    step: int
    epoch: int
    micro: int
    utterances: tuple[StoredUtterance, ...]
    first_frames: tuple[int, ...]
    wave_BN: torch.Tensor
    num_samples_B: torch.Tensor
    weight_B: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(
            self.step,
            self.epoch,
            self.micro,
            self.utterances,
            self.first_frames,
            self.wave_BN.to(device, non_blocking=True),
            self.num_samples_B,  # the model reads lengths on the host
            self.weight_B.to(device, non_blocking=True),
        )


class BatchLoader:
    """A rank's micro-batches of every update, read one update ahead."""

    def __init__(
        self,
        plan: BatchPlan,
        utterances: Sequence[StoredUtterance],
        reader: AudioReader,
        *,
        rank: int,
        world_size: int,
        micro_batches: int,
        max_samples: int,
        seed: int,
    ) -> None:
        self._plan = plan
        self._utterances = utterances
        self._reader = reader
        self._rank = rank
        self._world_size = world_size
        self._micro_batches = micro_batches
        self.passes = -(-micro_batches // world_size)
        self._max_samples = max_samples
        self._seed = seed

    def updates(self, first: int, end: int) -> Iterator[tuple[int, list[Batch]]]:
        """(update, this rank's micro-batches) for updates ``first`` to ``end`` - 1."""
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            pending = pool.submit(self._load, first) if first < end else None
            for step in range(first, end):
                assert pending is not None  # the loop body ran for every step before
                batches = pending.result()
                pending = pool.submit(self._load, step + 1) if step + 1 < end else None
                yield step, batches

    def whole(self, utterances: Sequence[StoredUtterance]) -> Batch:
        """A batch to judge by: whole utterances, each counted once."""
        waves = [pcm16_to_float(self._reader.samples(u)) for u in utterances]
        wave_BN, num_samples_B = pad_waves(waves)
        weight_B = torch.ones(len(waves))
        return Batch(
            0, 0, 0, tuple(utterances), (0,) * len(waves), wave_BN, num_samples_B, weight_B
        )

    def _load(self, step: int) -> list[Batch]:
        indices = sorted(
            self._plan.batch(step),
            key=lambda i: (self._utterances[i].num_samples, self._utterances[i].utterance_id),
        )
        cut = [c.tolist() for c in np.array_split(np.array(indices), self._micro_batches)]
        found: list[Batch] = []
        for i in range(self.passes):
            micro = i * self._world_size + self._rank
            mine = cut[micro] if micro < len(cut) else []
            # A rank may have nothing to do in a pass; it still takes part in the update.
            weight = 1.0 if mine else 0.0
            found.append(self._collate(step, micro, mine or indices[:1], weight))
        return found

    def _collate(self, step: int, micro: int, indices: Sequence[int], weight: float) -> Batch:
        epoch = self._plan.epoch(step)
        utterances = tuple(self._utterances[i] for i in indices)
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
        )

    def _crop(self, epoch: int, utterance: StoredUtterance) -> tuple[int, np.ndarray]:
        """A random stretch of at most ``max_samples``, cut on a frame's border."""
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
