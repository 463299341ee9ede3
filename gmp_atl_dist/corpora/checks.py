"""The checks of an utterance, the same for all corpora.

Each function is pure. :func:`gmp_atl_dist.corpora.reading.read_corpus` combines them.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import PurePosixPath

from gmp_atl_dist.config import canonical_json
from gmp_atl_dist.corpora.canonical import canonical_text
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.records import UNKNOWN_GENDER, Gender, Problem, Utterance
from gmp_atl_dist.store.filesystem import Entry

_GENDER_SPELLINGS: dict[str, Gender] = {
    "f": "female",
    "female": "female",
    "w": "female",
    "woman": "female",
    "m": "male",
    "male": "male",
    "man": "male",
}


WITHOUT_GENDER = (
    "If it has that column under another name, set corpus.columns.gender. To train without gender, set "
    "warmup.gender_weight = 0 and cluster.gender = 'none'"
)
"""What to do about a corpus that tells no gender."""


def spelling(text: str) -> str:
    """The canonical spelling of an emotion: :func:`canonical_text` in lower case."""
    return canonical_text(text).casefold()


def parse_gender(text: str) -> Gender | None:
    """The gender of f, female, w, woman, m, male or man in any case; None for any other text."""
    return _GENDER_SPELLINGS.get(spelling(text))


def check_utterance(
    u: Utterance,
    known: Mapping[str, str],
    files: Mapping[str, Entry] | None,
    seen: AbstractSet[str],
    *,
    gender_needed: bool = True,
    forms: Mapping[str, str] | None = None,
) -> tuple[Utterance, list[str]]:
    """The utterance with canonical path, gender and emotion, and the reasons why it is bad.

    Args:
        u: the utterance of the adapter, with its emotion spelled by :func:`spelling`.
        known: the classes by their :func:`spelling`.
        files: the files of the corpus, by path; None: whether the file is there is not checked.
        seen: ids of earlier utterances, by their :func:`canonical_text`.
        gender_needed: an unknown gender makes an utterance bad; otherwise it is stored as unknown.
        forms: the paths of ``files`` that are not ASCII, by their NFC form. A file system may store a
            name in another Unicode form than the table.
    """
    reasons: list[str] = []
    if not u.utterance_id.strip():
        reasons.append(f"has no id (its audio is {u.path!r}); give it one")
    elif canonical_text(u.utterance_id) in seen:
        reasons.append("its id occurs more than once; make ids unique")
    if not u.speaker.strip():
        reasons.append("has no speaker; folds need one")
    gender = parse_gender(u.gender) or (None if gender_needed else UNKNOWN_GENDER)
    if gender is None:
        reasons.append(f"gender {u.gender!r} is not known; use female or male")
    if u.emotion not in known:
        reasons.append(
            f"emotion {u.emotion!r} is not a class ({', '.join(known.values())}); rename it in "
            f"corpus.merge, add it to corpus.emotions, or set corpus.ignore_other_emotions = true"
        )
    reasons += _segment_reasons(u)
    # A path that is in the listing already has its canonical spelling.
    path = u.path if files is not None and u.path in files else _path_inside(u.path)
    if path is not None and files is not None and forms and path not in files:
        path = forms.get(unicodedata.normalize("NFC", path), path)
    entry = None if path is None or files is None else files.get(path)
    if path is None:
        reasons.append(
            f"audio path {u.path!r} leaves the corpus; give a path relative to its root, "
            f"or name the folder that it begins with in corpus.audio_root"
        )
    elif entry is None and files is not None:
        reasons.append(f"audio file {path!r} is missing; copy it there or correct the path")
    elif entry is not None and entry.size == 0:
        reasons.append(f"audio file {path!r} is empty (0 bytes); copy it again")
    if reasons or gender is None or path is None:
        return u, reasons
    emotion = known[u.emotion]
    # Avoids a copy of each of a million utterances.
    if (path, gender, emotion) == (u.path, u.gender, u.emotion):
        return u, []
    return replace(u, path=path, gender=gender, emotion=emotion), []


def _segment_reasons(u: Utterance) -> list[str]:
    times = {"start_s": u.start_s, "end_s": u.end_s}
    reasons = [
        f"{name} is {value}; give seconds from the start of the recording, or leave it empty"
        for name, value in times.items()
        if value is not None and not (math.isfinite(value) and value >= 0)
    ]
    if not reasons and u.end_s is not None and u.end_s <= (u.start_s or 0.0):
        reasons.append(f"end_s {u.end_s:g} is not after start_s {u.start_s or 0.0:g}; correct them")
    return reasons


def _path_inside(path: str) -> str | None:
    """``path`` in canonical form (no ``./`` or ``//``); None if it leaves the corpus root."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or "://" in path or not pure.parts or ".." in pure.parts:
        return None
    return str(pure)


def refuse_too_many_bad(
    where: str, num_bad: int, num_listed: int, max_fraction: float, problems: Sequence[Problem]
) -> None:
    """A few bad items are left out. Too many of them indicate another error.

    Raises:
        CorpusError: more than ``max_fraction`` of the listed utterances are bad; names the items.
    """
    if not num_bad or num_bad / num_listed <= max_fraction:
        return
    raise CorpusError.of_all(
        f"{where}: {num_bad} of {num_listed} utterances are bad, a fraction of "
        f"{num_bad / num_listed:.6g}, and corpus.max_bad_fraction is {max_fraction:g}; repair them, "
        f"or raise that key to leave them out:",
        [str(p) for p in problems],
    )


def stamp_of(files: Iterable[Entry], utterances: Iterable[Utterance]) -> str:
    """Digest over path, size and time of the audio files, and over the rows of the table."""
    sha256 = hashlib.sha256()
    for f in files:
        sha256.update(canonical_json([f.path, f.size, f.mtime_ns]).encode() + b"\n")
    for u in utterances:
        row = [u.utterance_id, u.path, u.speaker, u.gender, u.emotion, u.session, u.split]
        sha256.update(canonical_json([*row, u.start_s, u.end_s]).encode() + b"\n")
    return sha256.hexdigest()
