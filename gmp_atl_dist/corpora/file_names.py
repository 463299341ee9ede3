"""Corpora whose file names hold the labels: walk the files, parse each name, and name what does not match.

Every file is accounted for. A file is an utterance, a companion (text, licence, hidden file) that the
adapter's docstring lists, or a named problem. Nothing else is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

from gmp_atl_dist.corpora.base import Listed
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.records import Problem, Utterance
from gmp_atl_dist.store.filesystem import Store

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")
"""Of recordings as published, and of copies in another container."""

Reader: TypeAlias = Callable[[str, "re.Match[str]"], "Utterance | str | None"]
"""From the path of a file and the parts of its name: its utterance, what is wrong with it, or None.

None is for a file that the configuration leaves out, or that the docstring of the adapter lists.
"""

# Texts, tables, licences and pictures lie beside the recordings of nearly every corpus.
_COMPANIONS = re.compile(
    r".*\.(txt|md|rst|csv|tsv|json|jsonl|pdf|docx?|xlsx?|rtf|html?|xml|bib|py|sh|m|mat|r|png|jpe?g|gif"
    r"|lab|label|lablaut|labsilb|silb|laut|textgrid|phn|wrd|lnk|toml|ya?ml)"
    r"|(.*/)?(readme|licen[cs]e|copying|citation|changelog)[^/.]*",
    re.IGNORECASE,
)
# Of operating systems and version control: ._x.wav is no recording.
_HIDDEN = re.compile(r"(.*/)?(\.[^/]*|__MACOSX|thumbs\.db|desktop\.ini)(/.*)?", re.IGNORECASE)


def list_by_name(
    source: Store,
    pattern: str,
    read: Reader,
    *,
    example: str,
    suffixes: tuple[str, ...] = AUDIO_SUFFIXES,
    faults: Mapping[str, str] | None = None,
) -> Listed:
    """The utterances of all files whose names match, and a problem for each file that does not.

    Args:
        source: the corpus.
        pattern: of the end of a path without its suffix, from the beginning of a name on.
        read: makes the utterance of a file that matches.
        example: a path that matches, for messages.
        suffixes: of recordings, in lower case.
        faults: known faults of the release: file name without suffix -> what is wrong with it.

    Raises:
        CorpusError: there is no recording at all.
    """
    compiled = re.compile(rf"(?:.*/)?{pattern}")
    recordings, problems = find_recordings(source, suffixes)
    if not recordings:
        raise CorpusError(
            f"{source.uri}: holds no recording; set runtime.corpus to the folder with files like "
            f"{example}"
        )
    utterances: list[Utterance] = []
    for path in recordings:
        fault = (faults or {}).get(stem_of(path))
        match = compiled.fullmatch(path.rpartition(".")[0])
        if fault is not None:
            problems.append(Problem(path, f"known fault of the release: {fault}"))
        elif match is None:
            reason = f"its name is not like {example}; rename it, or move it away"
            problems.append(Problem(path, reason))
        else:
            made = read(path, match)
            if isinstance(made, Utterance):
                utterances.append(made)
            elif made is not None:
                problems.append(Problem(path, made))
    return utterances, problems


def find_recordings(
    source: Store, suffixes: tuple[str, ...] = AUDIO_SUFFIXES
) -> tuple[list[str], list[Problem]]:
    """The paths of all files with one of ``suffixes``, and a problem for each file of no known kind."""
    recordings: list[str] = []
    problems: list[Problem] = []
    for entry in source.list():
        if _HIDDEN.fullmatch(entry.path):
            continue
        if entry.path.lower().endswith(suffixes):
            recordings.append(entry.path)
        elif not _COMPANIONS.fullmatch(entry.path):
            problems.append(Problem(entry.path, "is neither a recording nor a text; move it away"))
    return recordings, problems


def stem_of(path: str) -> str:
    """The name of a file without folders and suffix."""
    return path.rpartition("/")[2].rpartition(".")[0]
