"""The sample of utterances and frames that k-means is fitted on, if a corpus has more than it needs.

The seed and an utterance's id alone decide whether it is in the sample, and which of its frames are. So
the sample depends neither on how the corpus is cut into parts nor on the order of reading, and a worker
needs no list of it.

Shape suffixes: U utterances.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gmp_atl_dist.config import ClusterConfig
from gmp_atl_dist.seeding import keyed_rng, keyed_seed

_WHOLE = 1 << 63

Shares = tuple[tuple[str, float], ...]
"""(group, share), where groups have different shares."""


@dataclass(frozen=True)
class UtteranceSample:
    """A random share of the utterances; with ``by``, each group may have its own share.

    ``by`` names the column of the corpus that holds the group. A group without its own share has
    ``share``.
    """

    share: float
    seed: int
    by: str = ""
    shares: Shares = ()

    @property
    def is_all(self) -> bool:
        return min([self.share, *(share for _, share in self.shares)]) >= 1.0

    def share_of(self, group: str) -> float:
        return dict(self.shares).get(group, self.share)

    def holds(self, utterance_id: str, group: str = "") -> bool:
        share = self.share_of(group)
        return share >= 1.0 or keyed_seed("sample", self.seed, utterance_id) < share * _WHOLE

    def mask(self, utterance_ids: Iterable[str], groups: Iterable[str] | None = None) -> list[bool]:
        """For each id, whether it is in the sample."""
        if groups is None:
            return [self.holds(utterance_id) for utterance_id in utterance_ids]
        return [self.holds(i, group) for i, group in zip(utterance_ids, groups, strict=True)]


@dataclass(frozen=True)
class FrameSample:
    """A random share of the frames of each utterance in ``utterances``."""

    utterances: UtteranceSample
    share: float = 1.0
    shares: Shares = ()

    def rows(self, utterance_id: str, group: str, num_frames: int) -> np.ndarray | None:
        """The rows of the sampled frames, in ascending order; None is all of them."""
        share = dict(self.shares).get(group, self.share)
        if share >= 1.0:
            return None
        rng = keyed_rng("frames", self.utterances.seed, utterance_id)
        return _share_of_rows(rng, num_frames, share)


def initialization_rows(seed: int, utterance_id: str, num_frames: int, share: float) -> np.ndarray:
    """The rows of an utterance that may become first centroids, in ascending order.

    They are drawn independently of the sample.
    """
    if share >= 1.0:
        return np.arange(num_frames)
    return _share_of_rows(keyed_rng("start", seed, utterance_id), num_frames, share)


def _share_of_rows(rng: np.random.Generator, num_frames: int, share: float) -> np.ndarray:
    # The fractional part of the number is the probability of one frame more.
    count = min(num_frames, int(num_frames * share + rng.random()))
    return np.sort(rng.choice(num_frames, count, replace=False))


def plan_sample(
    config: ClusterConfig, utterance_ids: Sequence[str], groups: Sequence[str], frames_U: np.ndarray
) -> FrameSample:
    """Shares that give about ``config.sample_frames`` frames; if balanced, the same number per group.

    A group with fewer frames than its part gives all of them, and the other groups share the rest. Frames
    are drawn from utterances that hold ``config.sample_spread`` times as many. ``groups`` names the group
    of each utterance; it is not used without ``config.balance``.
    """
    by = "" if config.balance == "none" else config.balance
    names = np.asarray(groups if by else [""] * len(utterance_ids))
    totals = {str(g): int(frames_U[names == g].sum()) for g in np.unique(names)}
    everything = sum(totals.values())
    wanted = everything if config.sample_frames == "all" else config.sample_frames
    # Balanced and with "all", every group gives as many frames as the smallest one has.
    if by and config.sample_frames == "all" and totals:
        wanted = min(totals.values()) * len(totals)
    quotas = _fair_quotas(totals, wanted)
    shares_of_utterances = {
        g: min(1.0, config.sample_spread * q / max(totals[g], 1)) for g, q in quotas.items()
    }
    utterances = UtteranceSample(
        shares_of_utterances.get("", 1.0),
        config.seed,
        by,
        tuple(sorted(shares_of_utterances.items())) if by else (),
    )
    held_U = np.asarray(utterances.mask(utterance_ids, names.tolist()), dtype=bool)
    held = {g: int(frames_U[held_U & (names == g)].sum()) for g in totals}
    shares = {g: min(1.0, quota / max(held[g], 1)) for g, quota in quotas.items()}
    return FrameSample(utterances, shares.get("", 1.0), tuple(sorted(shares.items())) if by else ())


def _fair_quotas(totals: Mapping[str, int], wanted: int) -> dict[str, float]:
    """The frames that each group gives of ``wanted``: the same number, or all it has."""
    quotas: dict[str, float] = {}
    left = float(wanted)
    for number, (group, total) in enumerate(sorted(totals.items(), key=lambda item: item[1])):
        quotas[group] = min(float(total), left / (len(totals) - number))
        left -= quotas[group]
    return quotas
