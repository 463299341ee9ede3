"""Numbers with their nouns, as people read them."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """``1 speaker``, ``2 speakers``. For nouns whose plural ends in a plain ``s``.

    The last word of ``noun`` is the one that changes: ``3 labelled utterances``.
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
