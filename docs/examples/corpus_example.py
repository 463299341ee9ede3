"""A complete corpus adapter in one file: ``folders``, a tree of recordings without a table.

    SPEAKER/EMOTION/NAME.wav      e.g. F03/angry/take_017.wav

The first letter of SPEAKER is the gender, F or M. An adapter only lists what the corpus says. That audio
files can be read, ids are unique and emotions belong to the class list is checked for all corpora alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.base import Listed
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.records import Gender, Problem, Utterance
from gmp_atl_dist.store.filesystem import Store

_GENDERS: dict[str, Gender] = {"F": "female", "M": "male"}


@dataclass(frozen=True)
class Folders:
    """The adapter. Its name is that of the entry point."""

    name: ClassVar[str] = "folders"
    # Empty: the classes are the emotions that the corpus has, sorted.
    default_emotions: ClassVar[tuple[str, ...]] = ()

    def list(self, source: Store, config: CorpusConfig) -> Listed:
        """All recordings below ``source``, which may be a folder or a bucket.

        Raises:
            CorpusError: there is no recording at all.
        """
        utterances: list[Utterance] = []
        problems: list[Problem] = []
        # Sorted, so that every listing of the same corpus is the same.
        for path in sorted(entry.path for entry in source.list()):
            name = path.rpartition("/")[2]
            if not name.endswith(".wav") or name.startswith("."):
                continue
            parsed = _parse(path)
            if isinstance(parsed, Utterance):
                utterances.append(parsed)
            else:
                problems.append(Problem(path, parsed))
        if not utterances and not problems:
            raise CorpusError(
                f"{source.uri}: there is no SPEAKER/EMOTION/NAME.wav; set runtime.corpus to the folder "
                f"that holds the speakers' folders"
            )
        return utterances, problems


def _parse(path: str) -> Utterance | str:
    """The utterance of a path, or what is wrong with the path."""
    folders = path.split("/")
    if len(folders) != 3:
        return "is not of the form SPEAKER/EMOTION/NAME.wav; move the file"
    speaker, emotion, name = folders
    gender = _GENDERS.get(speaker[0])
    if gender is None:
        return f"speaker {speaker!r} begins neither with F nor with M; rename the folder"
    return Utterance(
        # Names may repeat between folders, ids may not.
        utterance_id=f"{speaker}_{emotion}_{name.removesuffix('.wav')}",
        path=path,
        speaker=speaker,
        gender=gender,
        emotion=emotion,
    )
