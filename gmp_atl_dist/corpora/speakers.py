"""What the names and genders of a corpus's speakers say against each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from gmp_atl_dist.records import GENDERS, Note, Utterance

_SHOWN = 5


def speaker_notes(utterances: Iterable[Utterance]) -> Iterator[Note]:
    """A note for each speaker with two genders, and for names that differ in case alone.

    Both may be right: two speakers may be called ``a`` and ``A``, and a table may tell what a speaker
    acts. So no utterance is left out, but folds and codebooks by gender depend on it.
    """
    genders: dict[str, Counter[str]] = {}
    first: dict[tuple[str, str], str] = {}
    for u in utterances:
        genders.setdefault(u.speaker, Counter())[u.gender] += 1
        first.setdefault((u.speaker, u.gender), u.utterance_id)
    for speaker, counts in sorted(genders.items()):
        told = [gender for gender in GENDERS if counts[gender]]
        if len(told) > 1:
            each = " and ".join(
                f"{gender} in {counts[gender]} (first: {first[speaker, gender]!r})"
                for gender in told
            )
            yield Note(
                f"speaker {speaker!r}",
                f"has two genders: {each}; correct the gender, or give two people two names",
            )
    by_case: dict[str, list[str]] = {}
    for speaker in sorted(genders):
        by_case.setdefault(speaker.casefold(), []).append(speaker)
    for names in by_case.values():
        if len(names) > 1:
            shown = ", ".join(map(repr, names[:_SHOWN]))
            yield Note(
                f"speakers {shown}",
                "differ in upper and lower case alone and count as different people; write one name "
                "if they are one person",
            )
