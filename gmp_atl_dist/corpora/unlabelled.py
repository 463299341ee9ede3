"""A corpus without labels: the audio files below a folder or prefix, for prediction alone.

An utterance's id is its path. Speaker, gender and emotion are empty, so no stage that is fitted can use it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import cast

from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.base import CorpusListing
from gmp_atl_dist.corpora.checks import stamp_of
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.records import Gender, Problem, Utterance
from gmp_atl_dist.store.filesystem import Store

UNLABELLED = CorpusConfig(adapter="unlabelled", min_s=0.025, max_s=3600.0, max_bad_fraction=1.0)
"""Bad recordings are left out and named, however many there are."""
_NO_GENDER = cast("Gender", "")


def unlabelled_reader(
    suffixes: Collection[str],
) -> Callable[[CorpusConfig, Store], CorpusListing]:
    """Lists the files with one of ``suffixes`` (lower case, with the dot) for ``Ingest.read``."""

    def read(_: CorpusConfig, source: Store) -> CorpusListing:
        found = [e for e in source.list() if _suffix(e.path) in suffixes]
        entries = [e for e in found if e.size]
        if not entries:
            raise CorpusError(
                f"{source.uri} holds no audio file; known suffixes: {', '.join(sorted(suffixes))}"
            )
        utterances = tuple(
            Utterance(e.path, e.path, speaker="", gender=_NO_GENDER, emotion="") for e in entries
        )
        return CorpusListing(
            utterances=utterances,
            sizes={e.path: e.size for e in entries},
            stamp=stamp_of(entries, list(utterances)),
            emotions=(),
            problems=tuple(Problem(e.path, "is empty") for e in found if not e.size),
            num_bad=len(found) - len(entries),
        )

    return read


def _suffix(path: str) -> str:
    return "." + path.rpartition(".")[2].lower()
