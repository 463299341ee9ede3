"""Updates that draw from several sources by given shares: a function of data, shares, seed and update.

Each source is an endless stream of its utterances: one random order after the other, each of all of them.
Update ``n`` takes the stretch of every stream that its share entitles it to. So the audio that was drawn of
a source after ``n`` updates is its share to within one utterance, in each update and over all of them, and a
stopped run resumes at any update.

Shape suffixes: U utterances of the training set, O utterances of one order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.partition import piece_starts
from gmp_atl_dist.seeding import keyed_rng
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.index import Utterances
from gmp_atl_dist.store.sources import LinkedSource, read_sources
from gmp_atl_dist.training.batch_plan import WINDOW_S, BatchPlan, UpdatePlan


class SourceStream:
    """The utterances of one source, again and again, each time in another order.

    Args:
        numbers: of its utterances in the training set, int64.
        length_U: samples that are used of each utterance of the training set.
        part_U: the part in which each lies.
        per_update: samples of the source in an update.
        window: samples that are shuffled together; parts are read front to back, window by window.
    """

    def __init__(
        self,
        name: str,
        numbers: np.ndarray,
        length_U: np.ndarray,
        part_U: np.ndarray,
        *,
        per_update: float,
        window: float,
        seed: int,
    ) -> None:
        self._name = name
        self._numbers = numbers
        self._length_O = length_U[numbers]
        self._part_O = part_U[numbers]
        self._per_update = per_update
        self._window = window
        self._seed = seed
        self.total = int(self._length_O.sum())
        self.longest = int(self._length_O.max())
        self._order = lru_cache(maxsize=2)(self._plan_order)

    def batch(self, step: int) -> np.ndarray:
        """Its utterances in update ``step``: those whose middle lies in the update's stretch."""
        first, end = int(step * self._per_update), int((step + 1) * self._per_update)
        found: list[np.ndarray] = []
        for turn in range(first // self.total, -(-end // self.total)):
            order_O, twice_middle_O = self._order(turn)
            before = turn * self.total
            edges = 2 * np.array([first - before, end - before], np.int64)
            start, stop = np.searchsorted(twice_middle_O, edges, side="left")
            found.append(order_O[start:stop])
        return np.concatenate(found) if found else self._numbers[:0]

    def _plan_order(self, turn: int) -> tuple[np.ndarray, np.ndarray]:
        """(utterances in order [O], twice the sample at the middle of each [O])."""
        rng = keyed_rng("source order", self._seed, self._name, turn)
        parts, part_O = np.unique(self._part_O, return_inverse=True)
        audio = np.bincount(part_O, weights=self._length_O)
        part_order = rng.permutation(len(parts))
        window = np.empty(len(parts), np.int64)
        window[part_order] = (np.cumsum(audio[part_order]) - audio[part_order]) // self._window
        order_O = np.lexsort((rng.random(len(part_O)), window[part_O]))
        length_O = self._length_O[order_O]
        return self._numbers[order_O], 2 * np.cumsum(length_O) - length_O


class MixedPlan:
    """Batches of utterance numbers, each with the given share of every source.

    Args:
        source_U: the number of the source of each utterance, or -1 where none of it is drawn.
        shares: of the audio of an update, by the name of the source, in the order of these numbers.
        batch_s: the audio in a batch. It is more where every source would get less than its longest
            utterance, so that no batch is empty.
    """

    def __init__(
        self,
        num_samples_U: np.ndarray,
        part_U: np.ndarray,
        source_U: np.ndarray,
        shares: Mapping[str, float],
        *,
        batch_s: float,
        max_samples: int,
        seed: int,
    ) -> None:
        self._length_U = np.minimum(num_samples_U, max_samples)
        numbers = {name: np.flatnonzero(source_U == i) for i, name in enumerate(shares)}
        needed = min(self._length_U[numbers[name]].max() / share for name, share in shares.items())
        batch_samples = max(batch_s * SAMPLE_RATE_HZ, float(needed))
        self._streams = [
            SourceStream(
                name,
                numbers[name],
                self._length_U,
                part_U,
                per_update=share * batch_samples,
                window=share * WINDOW_S * SAMPLE_RATE_HZ,
                seed=seed,
            )
            for name, share in shares.items()
        ]
        total = sum(stream.total for stream in self._streams)
        self.batches_per_epoch = max(1, int(total // batch_samples))
        """Updates that draw as much audio as the sources hold."""
        self.update_samples = batch_samples

    def batch(self, step: int) -> np.ndarray:
        """int64 numbers of the utterances of update ``step``, counted from 0, sorted by length."""
        numbers = np.concatenate([stream.batch(step) for stream in self._streams])
        return numbers[np.lexsort((numbers, self._length_U[numbers]))]

    def micro_batches(self, step: int, count: int) -> list[np.ndarray]:
        """The batch, cut into ``count`` pieces of similar audio and lengths; some may be empty."""
        batch = self.batch(step)
        starts = piece_starts(self._length_U[batch], count)
        return [batch[starts[i] : starts[i + 1]] for i in range(count)]

    def epoch(self, step: int) -> int:
        """What crops and masks are drawn for: the update, because sources come again at their own pace."""
        return step


def shares_of(
    sources: Sequence[LinkedSource], audio: Mapping[str, float], unlabelled_share: float | None
) -> dict[str, float]:
    """The share of each source in the audio of an update; sources without a share are left out.

    Args:
        audio: of each source in the training set, by name.
        unlabelled_share: of all unlabelled sources together; None: as much as they have.
    """
    present = [s for s in sources if audio.get(s.name)]
    weighted = {s.name: s.weight * audio[s.name] for s in present}
    of_role = {
        role: sum(weighted[s.name] for s in present if s.labelled == role) for role in (True, False)
    }
    total = sum(of_role.values())
    role_share = {role: amount / total for role, amount in of_role.items()}
    if unlabelled_share is not None and all(of_role.values()):
        role_share = {True: 1 - unlabelled_share, False: unlabelled_share}
    shares = {
        s.name: role_share[s.labelled] * weighted[s.name] / of_role[s.labelled] for s in present
    }
    return {name: share for name, share in shares.items() if share > 0}


def plan_updates(
    corpus: Artifact,
    utterances: Utterances,
    unlabelled_share: float | None,
    *,
    batch_s: float,
    max_samples: int,
    seed: int,
) -> UpdatePlan:
    """How a training draws: every utterance once per epoch, or by the shares of the sources."""
    lengths, parts = utterances.num_samples, utterances.part_numbers
    sources = read_sources(corpus)
    by_shares = unlabelled_share is not None or any(s.weight != 1 for s in sources)
    if not (sources and by_shares):
        return BatchPlan(lengths, parts, batch_s=batch_s, max_samples=max_samples, seed=seed)
    names = [s.name for s in sources]
    own_U = utterances.source_numbers(names)
    used = np.bincount(own_U, weights=np.minimum(lengths, max_samples), minlength=len(names))
    shares = shares_of(sources, dict(zip(names, used.tolist(), strict=True)), unlabelled_share)
    drawn = {names.index(name): i for i, name in enumerate(shares)}
    source_U = np.array([drawn.get(i, -1) for i in range(len(names))], np.int64)[own_U]
    return MixedPlan(
        lengths,
        parts,
        source_U,
        shares,
        batch_s=batch_s,
        max_samples=max_samples,
        seed=seed,
    )
