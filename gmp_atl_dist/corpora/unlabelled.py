"""A corpus without labels: the audio files below a folder or prefix.

An utterance's id is its path. Speaker, gender and emotion are empty. ``unlabelled_reader`` lists files for
prediction, :class:`AudioFiles` a source of ``[[corpora]]`` whose role is unlabelled.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import cast

from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.base import Listed
from gmp_atl_dist.corpora.checks import stamp_of
from gmp_atl_dist.corpora.reading import CorpusListing
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.records import Gender, Problem, Utterance
from gmp_atl_dist.store.filesystem import Entry, Store

UNLABELLED = CorpusConfig(adapter="unlabelled", min_s=0.025, max_s=3600.0, max_bad_fraction=1.0)
"""Bad recordings are left out and named, however many there are."""
_NO_GENDER = cast("Gender", "")
AUDIO_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("wav", "flac", "ogg", "oga", "opus", "mp3", "aif", "aiff", "aifc"),
        *("au", "snd", "caf", "w64", "rf64", "sph", "nist"),
    )
)
"""Files of a folder with another suffix are left out. A file that is named itself may have any."""


class AudioFiles:
    """Every audio file below a folder or prefix. Each is an utterance; its path is its id."""

    name = "unlabelled"
    default_emotions: tuple[str, ...] = ()

    def list(self, source: Store, config: CorpusConfig) -> Listed:
        """The files, in the order of their paths.

        Raises:
            CorpusError: there is none.
        """
        return [_of_file(entry.path) for entry in _audio_files(source, AUDIO_SUFFIXES)], []


def unlabelled_reader(
    suffixes: Collection[str],
) -> Callable[[CorpusConfig, Store], CorpusListing]:
    """Lists the files with one of ``suffixes`` (lower case, with the dot) for ``Ingest.read``."""

    def read(_: CorpusConfig, source: Store) -> CorpusListing:
        found = _audio_files(source, suffixes)
        entries = [e for e in found if e.size]
        utterances = tuple(_of_file(e.path) for e in entries)
        return CorpusListing(
            utterances=utterances,
            sizes={e.path: e.size for e in entries},
            stamp=stamp_of(entries, list(utterances)),
            emotions=(),
            problems=tuple(Problem(e.path, "is empty") for e in found if not e.size),
            num_bad=len(found) - len(entries),
        )

    return read


def _audio_files(source: Store, suffixes: Collection[str]) -> list[Entry]:
    found = [e for e in source.list() if _suffix(e.path) in suffixes]
    if not any(e.size for e in found):
        raise CorpusError(
            f"{source.uri} holds no audio file; known suffixes: {', '.join(sorted(suffixes))}"
        )
    return found


def _of_file(path: str) -> Utterance:
    return Utterance(path, path, speaker="", gender=_NO_GENDER, emotion="")


def _suffix(path: str) -> str:
    return "." + path.rpartition(".")[2].lower()
