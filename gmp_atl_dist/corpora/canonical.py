"""One form of each name: what looks the same is the same.

Unicode has several ways to write one text. ``José`` may be four characters (NFC) or five (NFD), and
characters without width cannot be seen at all. Compared by their code points, one speaker would be two, on
both sides of a fold. So names of speakers, sessions, emotions and splits are brought into one form: NFC,
without control and invisible characters, and with plain blanks. Upper and lower case stay different in
speakers and sessions. File paths are not changed here, because a path names bytes on a disk.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from gmp_atl_dist.records import Note

# Characters that are not shown, and are in neither of the categories Cc and Cf.
_IGNORABLE = frozenset(
    chr(code)
    for first, last in (
        (0x034F, 0x034F),
        (0x115F, 0x1160),
        (0x17B4, 0x17B5),
        (0x180B, 0x180F),
        (0x3164, 0x3164),
        (0xFE00, 0xFE0F),
        (0xFFA0, 0xFFA0),
        (0xE0100, 0xE01EF),
    )
    for code in range(first, last + 1)
)
_BLANK_CONTROLS = frozenset("\t\n\v\f\r\x85\u2028\u2029")


def canonical_text(text: str) -> str:
    """``text`` in NFC, without invisible characters and outer blanks; each other blank is a space."""
    return text.strip() if text.isascii() and text.isprintable() else _canonical(text)


@lru_cache(maxsize=1 << 14)
def _canonical(text: str) -> str:
    shown: list[str] = []
    for character in unicodedata.normalize("NFC", text):
        category = unicodedata.category(character)
        if category == "Zs" or character in _BLANK_CONTROLS:
            shown.append(" ")
        elif category not in ("Cc", "Cf") and character not in _IGNORABLE:
            shown.append(character)
    # Without what stood between them, a letter and its accent may be one character again.
    return unicodedata.normalize("NFC", "".join(shown)).strip()


class NameForms:
    """Remembers which names were written in several forms, to say so."""

    def __init__(self) -> None:
        self._changed: dict[tuple[str, str], set[str]] = {}
        self._known: dict[tuple[str, str], str] = {}

    def canonical(self, field: str, text: str) -> str:
        """:func:`canonical_text`; ``field`` says what the name is of."""
        known = self._known.get((field, text))
        if known is not None:
            return known
        name = self._known[field, text] = canonical_text(text)
        if name != text and name != text.strip():
            self._changed.setdefault((field, name), set()).add(text)
        return name

    def notes(self) -> Iterator[Note]:
        """For each name that was changed: what it is now, and what was changed."""
        for (field, name), forms in sorted(self._changed.items()):
            written = ", ".join(sorted(ascii(form) for form in forms))
            what = "; ".join(sorted({_difference(form) for form in forms}))
            yield Note(
                f"{field} {name!r}", f"is also written {written} ({what}), and both are the same"
            )


def other_forms(paths: Iterable[str]) -> Mapping[str, str]:
    """Paths that are not ASCII by their NFC form. Two paths with one form are left out: they differ."""
    found: dict[str, str] = {}
    twice: set[str] = set()
    for path in paths:
        if path.isascii():
            continue
        form = unicodedata.normalize("NFC", path)
        if form in found:
            twice.add(form)
        found[form] = path
    return {form: path for form, path in found.items() if form not in twice}


def _difference(text: str) -> str:
    hidden = sorted({c for c in text if unicodedata.category(c) in ("Cc", "Cf") or c in _IGNORABLE})
    if hidden:
        names = (f"U+{ord(c):04X} {unicodedata.name(c, 'control character')}" for c in hidden)
        return f"without {', '.join(names)}"
    return "another Unicode form" if not unicodedata.is_normalized("NFC", text) else "other blanks"
