"""The same audio in several utterances: found by digests, without a table of them in memory.

Two utterances with the same samples and different speakers or emotions contradict each other. One of the
labels is wrong, and with folds of speakers the same recording is learnt from and tested on. Which label is
right cannot be told, so all of them are bad items. Copies with the same labels are named: they count twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gmp_atl_dist.records import Problem, Utterance

_KEY_BYTES = 16
"""128 bits of a digest: among a million recordings, two of them are equal by chance once in 1e27 corpora."""
_SHOWN = 3


class Labelled(Protocol):
    """A listed or a stored utterance."""

    @property
    def utterance_id(self) -> str: ...
    @property
    def speaker(self) -> str: ...
    @property
    def emotion(self) -> str: ...


@dataclass(frozen=True)
class SameAudio:
    """What the comparison found.

    Attributes:
        contradictions: why an utterance is bad, by its position.
        copies: ids of utterances with the same audio, speaker and emotion.
    """

    contradictions: dict[int, str]
    copies: tuple[tuple[str, ...], ...]

    def problems(self, utterances: Sequence[Labelled]) -> list[Problem]:
        """One per contradicting utterance, in the order of ``utterances``."""
        return [
            Problem(f"utterance {utterances[i].utterance_id!r}", reason)
            for i, reason in sorted(self.contradictions.items())
        ]

    def kept(self, utterances: Sequence[Labelled]) -> list[int]:
        """The positions of the utterances that contradict no other one."""
        return [i for i in range(len(utterances)) if i not in self.contradictions]

    def copies_line(self) -> str:
        """One sentence about the copies; empty if there are none."""
        if not self.copies:
            return ""
        shown = "; ".join(" = ".join(ids[:_SHOWN]) for ids in self.copies[:_SHOWN])
        more = "; ..." if len(self.copies) > _SHOWN else ""
        count = len(self.copies)
        occur = "1 recording occurs" if count == 1 else f"{count} recordings occur"
        return f"{occur} more than once with the same speaker and emotion: {shown}{more}"


def same_samples(utterances: Sequence[Labelled], sha256: Iterable[str]) -> SameAudio:
    """Compare utterances by the digests of their samples, in hexadecimal, in the same order."""
    return _compare(utterances, (bytes.fromhex(digest[: 2 * _KEY_BYTES]) for digest in sha256))


def same_segments(utterances: Sequence[Utterance]) -> SameAudio:
    """Compare utterances by file and segment. This needs no audio, and finds no copied file."""
    keys = (
        hashlib.blake2b(
            f"{u.path}\0{u.start_s}\0{u.end_s}".encode(), digest_size=_KEY_BYTES
        ).digest()
        for u in utterances
    )
    return _compare(utterances, keys)


def _compare(utterances: Sequence[Labelled], keys: Iterable[bytes]) -> SameAudio:
    contradictions: dict[int, str] = {}
    copies: list[tuple[str, ...]] = []
    for group in _equal(keys, len(utterances)):
        members = [utterances[i] for i in group]
        differing = [
            f"{what} ({', '.join(map(repr, values[:_SHOWN]))}{', ...' * (len(values) > _SHOWN)})"
            for what, values in (
                ("speaker", sorted({u.speaker for u in members})),
                ("emotion", sorted({u.emotion for u in members})),
            )
            if len(values) > 1
        ]
        if not differing:
            copies.append(tuple(u.utterance_id for u in members))
            continue
        for i in group:
            others = [repr(utterances[k].utterance_id) for k in group if k != i]
            contradictions[i] = (
                f"has the same audio as {', '.join(others[:_SHOWN])}"
                f"{', ...' * (len(others) > _SHOWN)} with another {' and '.join(differing)}; keep the one "
                f"that is labelled correctly"
            )
    return SameAudio(contradictions, tuple(sorted(copies)))


def _equal(keys: Iterable[bytes], count: int) -> Iterator[list[int]]:
    """Positions with equal keys, in groups of two and more. Takes 40 bytes of memory per key."""
    held = bytearray(count * _KEY_BYTES)
    for i, key in enumerate(keys):
        held[i * _KEY_BYTES : (i + 1) * _KEY_BYTES] = key
    words = np.frombuffer(held, np.uint64).reshape(count, 2)
    order = np.lexsort((words[:, 1], words[:, 0]))
    in_order = words[order]
    equal = (in_order[1:] == in_order[:-1]).all(axis=1)
    # A group begins where a key equals the next one and not the one before.
    begins = np.flatnonzero(equal & ~np.concatenate([[False], equal[:-1]]))
    for begin in begins:
        end = begin + 1
        while end < len(equal) and equal[end]:
            end += 1
        yield sorted(order[begin : end + 1].tolist())
